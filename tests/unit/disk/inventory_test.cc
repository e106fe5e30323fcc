#include "agent/disk/inventory.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

namespace fs = std::filesystem;
using metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A /proc, /sys and /dev of our own making.
class Machine {
 public:
  Machine() {
    for (const char* name : {"sys/dev/block", "sys/class/block", "dev", "proc/self"}) {
      fs::create_directories(root() / name);
    }
    roots_ = {.proc = dir_.File("proc"), .sys = dir_.File("sys"), .dev = dir_.File("dev")};
  }
  const SysRoots& roots() const { return roots_; }

  void Mounts(const std::string& text) { dir_.Write("proc/self/mountinfo", text); }

  // Makes sys/devices/<place> a block device; links it by number and by name.
  void Block(const std::string& place, const std::string& number) {
    const fs::path device = root() / "sys/devices" / place;
    fs::create_directories(device);
    fs::create_symlink(device, root() / "sys/dev/block" / number);
    fs::create_symlink(device, root() / "sys/class/block" / device.filename());
    std::ofstream(root() / "dev" / device.filename()) << "";
  }
  void Attribute(const std::string& place, const std::string& value) {
    dir_.Write("sys/devices/" + place, value + "\n");
  }
  void Link(const std::string& place, const std::string& target) {
    const fs::path link = root() / "sys/devices" / place;
    fs::create_directories(link.parent_path());
    fs::create_symlink(root() / "sys/devices" / target, link);
  }
  fs::path root() const { return dir_.path(); }
  const metal::testing::TempDir& dir() const { return dir_; }

 private:
  metal::testing::TempDir dir_;
  SysRoots roots_;
};

void AddNvme(Machine& machine) {
  const std::string controller = "pci0000:00/0000:00:04.0/nvme/nvme0";
  const std::string disk = controller + "/nvme0n1";
  machine.Block(disk, "259:0");
  machine.Attribute(controller + "/model", "SAMSUNG MZQL21T9HCJR-00A07               ");
  machine.Attribute(controller + "/serial", "S64GNE0R512345      ");
  machine.Attribute(controller + "/firmware_rev", "GDC5602Q");
  machine.Attribute(controller + "/transport", "pcie");
  machine.Link(disk + "/device", controller);
  machine.Attribute(disk + "/size", "3750748848");
  machine.Attribute(disk + "/queue/scheduler", "[none] mq-deadline");
  machine.Attribute(disk + "/queue/write_cache", "write through");
  machine.Attribute(disk + "/queue/logical_block_size", "512");
  machine.Attribute(disk + "/queue/physical_block_size", "4096");
  machine.Attribute(disk + "/queue/rotational", "0");
  machine.Block(disk + "/nvme0n1p1", "259:1");
  machine.Attribute(disk + "/nvme0n1p1/partition", "1");
}

TEST(MountInfoTest, OptionalFieldsAndEscapesAreUnderstood) {
  const auto mounts = ParseMountInfo(
      "22 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n"
      "nonsense\n"
      "23 22 259:1 /sub /srv/my\\040data rw - xfs /dev/nvme0n1p1 rw\n"
      "24 22 a:b / /x rw - xfs /dev/y rw\n"
      "25 22 0:40 / /run rw -");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].filesystem, "ext4");
  EXPECT_EQ(mounts[1].mount_point, "/srv/my data");
  EXPECT_EQ(mounts[1].root, "/sub");
  EXPECT_EQ(mounts[1].major, 259u);
  EXPECT_EQ(mounts[1].minor, 1u);
}

TEST(MountInfoTest, TheLongestAndLatestMountHoldsAPath) {
  const auto mounts = ParseMountInfo(
      "1 0 1:0 / / rw - ext4 /dev/a rw\n"
      "2 1 2:0 / /data rw - xfs /dev/b rw\n"
      "3 1 3:0 / /data rw - xfs /dev/c rw\n"
      "4 1 4:0 / /database rw - xfs /dev/d rw\n");
  EXPECT_EQ(FindMount(mounts, "/data/pg")->major, 3u);
  EXPECT_EQ(FindMount(mounts, "/data")->major, 3u);
  EXPECT_EQ(FindMount(mounts, "/database/x")->major, 4u);
  EXPECT_EQ(FindMount(mounts, "/dat")->major, 1u);
  EXPECT_FALSE(FindMount({}, "/data"));
}

TEST(InventoryTest, APartitionLeadsToItsNvmeDrive) {
  Machine machine;
  AddNvme(machine);
  machine.Mounts("36 1 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n");
  const auto stack = ReadStorageStack(machine.roots(), "/data/pg/15");
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_THAT(stack->layers, ElementsAre("nvme0n1p1", "nvme0n1"));
  EXPECT_EQ(stack->mount.filesystem, "xfs");
  ASSERT_EQ(stack->disks.size(), 1u);
  const DiskInfo& disk = stack->disks[0];
  EXPECT_EQ(disk.name, "nvme0n1");
  EXPECT_EQ(disk.nvme_controller, "nvme0");
  EXPECT_EQ(disk.model, "SAMSUNG MZQL21T9HCJR-00A07");
  EXPECT_EQ(disk.serial, "S64GNE0R512345");
  EXPECT_EQ(disk.firmware, "GDC5602Q");
  EXPECT_EQ(disk.transport, "nvme");
  EXPECT_EQ(disk.scheduler, "none");
  EXPECT_EQ(disk.write_cache, "write through");
  EXPECT_EQ(disk.size_bytes, 1'920'383'410'176u);
  EXPECT_EQ(disk.logical_block_size, 512u);
  EXPECT_EQ(disk.physical_block_size, 4096u);
  EXPECT_FALSE(disk.rotational);
}

TEST(InventoryTest, AMultipathNamespaceFindsAControllerOfItsSubsystem) {
  Machine machine;
  const std::string subsystem = "virtual/nvme-subsystem/nvme-subsys0";
  machine.Block(subsystem + "/nvme1n1", "259:5");
  machine.Link(subsystem + "/nvme1n1/device", subsystem);
  machine.Attribute("pci0/nvme/nvme1/serial", "SN1");
  machine.Attribute("pci0/nvme/nvme1/transport", "tcp");
  machine.Link(subsystem + "/nvme1", "pci0/nvme/nvme1");
  const auto disk = ReadDiskInfo(machine.roots(), "nvme1n1");
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ(disk->nvme_controller, "nvme1");
  EXPECT_EQ(disk->serial, "SN1");
  EXPECT_EQ(disk->transport, "nvme-tcp");
}

TEST(InventoryTest, LvmOnARaidOfPartitionsLeadsToBothDisks) {
  Machine machine;
  for (const char* name : {"sda", "sdb"}) {
    const std::string number = name[2] == 'a' ? "8:0" : "8:16";
    const std::string disk = std::string("pci0/ata1/host0/target0/block/") + name;
    machine.Block(disk, number);
    machine.Attribute(disk + "/queue/rotational", "1");
    machine.Block(disk + "/" + name + "1", name[2] == 'a' ? "8:1" : "8:17");
    machine.Attribute(disk + "/" + name + "1/partition", "1");
  }
  machine.Block("virtual/block/md0", "9:0");
  machine.Link("virtual/block/md0/slaves/sda1", "pci0/ata1/host0/target0/block/sda/sda1");
  machine.Link("virtual/block/md0/slaves/sdb1", "pci0/ata1/host0/target0/block/sdb/sdb1");
  machine.Block("virtual/block/dm-0", "253:0");
  machine.Link("virtual/block/dm-0/slaves/md0", "virtual/block/md0");
  machine.Mounts("36 1 253:0 / /data rw - ext4 /dev/mapper/vg-data rw\n");
  const auto stack = ReadStorageStack(machine.roots(), "/data");
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_THAT(stack->layers, ElementsAre("dm-0", "md0", "sda1", "sda", "sdb1", "sdb"));
  ASSERT_EQ(stack->disks.size(), 2u);
  EXPECT_EQ(stack->disks[0].transport, "sata");
  EXPECT_TRUE(stack->disks[1].rotational);
}

TEST(InventoryTest, ALoopDeviceLeadsToTheDiskUnderItsFile) {
  Machine machine;
  AddNvme(machine);
  machine.Block("virtual/block/loop0", "7:0");
  machine.Attribute("virtual/block/loop0/loop/backing_file", "/data/images/disk.img");
  machine.Mounts(
      "36 1 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n"
      "37 1 7:0 / /mnt rw - ext4 /dev/loop0 rw\n");
  const auto stack = ReadStorageStack(machine.roots(), "/mnt/pg");
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_THAT(stack->layers, ElementsAre("loop0", "nvme0n1p1", "nvme0n1"));
  EXPECT_EQ(stack->mount.mount_point, "/mnt");
  ASSERT_EQ(stack->disks.size(), 1u);
  EXPECT_EQ(stack->disks[0].serial, "S64GNE0R512345");
}

TEST(InventoryTest, ALoopOverItselfEnds) {
  Machine machine;
  machine.Block("virtual/block/loop0", "7:0");
  machine.Attribute("virtual/block/loop0/loop/backing_file", "/mnt/disk.img");
  machine.Mounts("37 1 7:0 / /mnt rw - ext4 /dev/loop0 rw\n");
  const auto stack = ReadStorageStack(machine.roots(), "/mnt");
  ASSERT_TRUE(stack.ok());
  EXPECT_THAT(stack->layers, ElementsAre("loop0"));
  EXPECT_THAT(stack->disks, IsEmpty());
}

TEST(InventoryTest, BtrfsHasAnAnonymousNumberAndSeveralMembers) {
  Machine machine;
  machine.Block("pci0/virtio1/block/vda", "254:0");
  machine.Block("pci0/virtio2/block/vdb", "254:16");
  const fs::path members = machine.root() / "sys/fs/btrfs/0f0f-uuid/devices";
  fs::create_directories(members);
  fs::create_symlink(machine.root() / "sys/devices/pci0/virtio1/block/vda", members / "vda");
  fs::create_symlink(machine.root() / "sys/devices/pci0/virtio2/block/vdb", members / "vdb");
  machine.Mounts("36 1 0:45 /@pg /data rw - btrfs /dev/vda rw,subvol=/@pg\n");
  const auto stack = ReadStorageStack(machine.roots(), "/data");
  ASSERT_TRUE(stack.ok());
  EXPECT_THAT(stack->layers, ElementsAre("vda", "vdb"));
  ASSERT_EQ(stack->disks.size(), 2u);
  EXPECT_EQ(stack->disks[0].transport, "virtio");
}

TEST(InventoryTest, MemoryAndUnionsAreReportedWithTheReason) {
  Machine machine;
  machine.Mounts(
      "1 0 0:30 / / rw - overlay overlay rw,upperdir=/u\n"
      "2 1 0:31 / /shm rw - tmpfs tmpfs rw\n"
      "3 1 0:32 / /tank rw - zfs tank/pg rw\n");
  const auto note = [&](const char* path) {
    const auto stack = ReadStorageStack(machine.roots(), path);
    EXPECT_TRUE(stack.ok());
    EXPECT_THAT(stack->disks, IsEmpty());
    return stack->note;
  };
  EXPECT_THAT(note("/shm/x"), HasSubstr("memory"));
  EXPECT_THAT(note("/pg"), HasSubstr("overlay"));
  EXPECT_THAT(note("/tank/pg"), HasSubstr("tank/pg"));
}

TEST(InventoryTest, ScsiSerialComesFromVitalProductData) {
  Machine machine;
  machine.Block("pci0/usb1/host2/target/2:0:0:0/block/sdc", "8:32");
  machine.Link("pci0/usb1/host2/target/2:0:0:0/block/sdc/device", "pci0/usb1/host2/target/2:0:0:0");
  machine.dir().Write("sys/devices/pci0/usb1/host2/target/2:0:0:0/vpd_pg80",
                      std::string("\0\x80\0\x08", 4) + "WD-12345");
  machine.Attribute("pci0/usb1/host2/target/2:0:0:0/rev", "1.00");
  const auto disk = ReadDiskInfo(machine.roots(), "sdc");
  ASSERT_TRUE(disk.ok());
  EXPECT_EQ(disk->serial, "WD-12345");
  EXPECT_EQ(disk->firmware, "1.00");
  EXPECT_EQ(disk->transport, "usb");
}

TEST(InventoryTest, WhatIsNotThereIsNotFound) {
  Machine machine;
  machine.Mounts("36 1 259:1 / /data rw - xfs /dev/nvme0n1p1 rw\n");
  EXPECT_THAT(ReadStorageStack(machine.roots(), "/srv"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(ReadDiskInfo(machine.roots(), "nvme9n1"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(ReadDiskInfo(machine.roots(), "../x"), StatusIs(absl::StatusCode::kNotFound));
}

TEST(InventoryTest, ThisMachinesRootHasAStackOrANote) {
  const auto stack = ReadStorageStack(SysRoots{}, "/");
  ASSERT_TRUE(stack.ok()) << stack.status();
  EXPECT_TRUE(!stack->disks.empty() || !stack->note.empty());
  for (const DiskInfo& disk : stack->disks) EXPECT_GT(disk.size_bytes, 0u);
}

}  // namespace
}  // namespace metal::disk
