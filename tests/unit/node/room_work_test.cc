#include "agent/node/room_work.h"

#include <sys/stat.h>

#include "agent/base/file.h"
#include "agent/pg/read_only_file.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {
namespace {

using base::kMiB;
using ::metal::testing::IsOkAndHolds;
using observe::PostgresState;
using observe::Role;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

observe::NodeStatus Status(PostgresState state, Role role, bool tight, bool exhausted = false) {
  observe::NodeStatus status;
  status.postgres.state = state;
  status.postgres.role_observed = role;
  observe::DiskSection disk;
  disk.device = "nvme0n1";
  disk.mount_point = "/data";
  disk.roles = {"data", "wal"};
  disk.space.emplace();
  disk.space->tight = tight;
  disk.space->exhausted = exhausted;
  status.disks.push_back(disk);
  disk.roles = {"repository"};
  disk.space->tight = disk.space->exhausted = true;  // is nobody's business here
  status.disks.push_back(disk);
  return status;
}

base::AgentConfig Config(int read_only_at = 97) {
  base::AgentConfig config;
  config.disk_read_only_at = read_only_at;
  config.disk_reserve = {64 * kMiB};
  return config;
}

TEST(DecideRoomTest, APrimaryOnAFullDiskIsMadeReadOnly) {
  const RoomWork work =
      DecideRoom(Status(PostgresState::kRunning, Role::kPrimary, true), Config(), true);
  EXPECT_EQ(work.read_only, true);
  EXPECT_THAT(work.reason, HasSubstr("/data"));
  EXPECT_FALSE(work.make_reserves);
  EXPECT_THAT(work.give_back, IsEmpty()) << "not yet";
  const RoomWork room =
      DecideRoom(Status(PostgresState::kRunning, Role::kPrimary, false), Config(), true);
  EXPECT_EQ(room.read_only, false);
  EXPECT_TRUE(room.make_reserves);
}

TEST(DecideRoomTest, AStandbyNeverIs) {
  const auto standby = Status(PostgresState::kRunning, Role::kStandby, true, true);
  EXPECT_EQ(DecideRoom(standby, Config(), true).read_only, false);
  EXPECT_TRUE(DecideRoom(standby, Config(), true).give_back.contains("wal"));
  const auto down = Status(PostgresState::kCrashed, Role::kPrimary, true);
  EXPECT_EQ(DecideRoom(down, Config(), false).read_only, false) << "it comes up as a standby";
  EXPECT_EQ(DecideRoom(down, Config(), true).read_only, true);
}

TEST(DecideRoomTest, WhatIsNotKnownStays) {
  observe::NodeStatus status = Status(PostgresState::kRunning, Role::kPrimary, true);
  for (observe::DiskSection& disk : status.disks) disk.space.reset();
  EXPECT_EQ(DecideRoom(status, Config(), true).read_only, std::nullopt);
  EXPECT_FALSE(DecideRoom(status, Config(), true).make_reserves);
}

TEST(DecideRoomTest, SwitchedOffItIsUndone) {
  const auto full = Status(PostgresState::kRunning, Role::kPrimary, true);
  EXPECT_EQ(DecideRoom(full, Config(0), true).read_only, false);
}

TEST(DecideRoomTest, AServerThatIsDownGetsTheReserveEarlier) {
  EXPECT_THAT(
      DecideRoom(Status(PostgresState::kRunning, Role::kPrimary, true, true), Config(), true)
          .give_back,
      ::testing::ElementsAre("data", "wal"));
  EXPECT_THAT(DecideRoom(Status(PostgresState::kQuarantined, Role::kUnknown, true), Config(), true)
                  .give_back,
              ::testing::ElementsAre("data", "wal"));
  EXPECT_THAT(
      DecideRoom(Status(PostgresState::kStopped, Role::kUnknown, true), Config(), true).give_back,
      IsEmpty());
}

TEST(DecideRoomTest, WhatWasGivenIsNoRoomForClients) {
  auto status = Status(PostgresState::kRunning, Role::kPrimary, false);
  status.room.read_only = true;
  status.room.reserves = {{"data", "/r", 0, std::string(kReserveGiven)}};
  EXPECT_EQ(DecideRoom(status, Config(), true).read_only, true);
  status.room.reserves[0].reason = kNoRoomForReserve;
  EXPECT_EQ(DecideRoom(status, Config(), true).read_only, true);
  EXPECT_TRUE(DecideRoom(status, Config(), true).make_reserves);
  status.room.reserves[0] = {"data", "/r", 64 * kMiB, ""};
  EXPECT_EQ(DecideRoom(status, Config(), true).read_only, false);
}

class RoomWorkTest : public ::testing::Test {
 protected:
  RoomWorkTest() {
    dir_.Write("pg/data/postgresql.conf", "shared_buffers = '1MB'\n");
    EXPECT_OK(base::MakeDirectories(dir_.File("pg/data/pg_wal")));
    work_.data_dir = dir_.File("pg/data");
    work_.reserve = {kMiB};
  }
  bool ReadOnlyFile() { return base::PathExists(dir_.File("pg/data/metal.readonly.conf")); }

  metal::testing::TempDir dir_;
  RoomWork work_;
};

TEST_F(RoomWorkTest, TheFileIsMadeAndRemovedAndStaysOtherwise) {
  work_.read_only = true;
  RoomLook look = DoRoomWork(work_);
  ASSERT_OK(look.status);
  EXPECT_FALSE(look.was_read_only);
  EXPECT_TRUE(look.read_only && ReadOnlyFile());
  EXPECT_FALSE(look.overridden);
  EXPECT_THAT(base::ReadFile(dir_.File("pg/data/postgresql.conf")),
              IsOkAndHolds(HasSubstr("include_if_exists 'metal.readonly.conf'")));
  work_.read_only.reset();
  look = DoRoomWork(work_);
  EXPECT_TRUE(look.was_read_only && look.read_only && ReadOnlyFile());
  dir_.Write("pg/data/postgresql.auto.conf", "default_transaction_read_only = 'off'\n");
  work_.read_only = false;
  look = DoRoomWork(work_);
  EXPECT_TRUE(look.was_read_only);
  EXPECT_FALSE(look.read_only || ReadOnlyFile());
  work_.read_only = true;
  EXPECT_TRUE(DoRoomWork(work_).overridden);
}

TEST_F(RoomWorkTest, TheReserveIsMadeGivenAndMadeAgain) {
  const std::string path = dir_.File("pg/.metal-reserve-data");
  EXPECT_EQ(DoRoomWork(work_).reserves.at(0).size_bytes, 0u) << "not before it is ordered";
  work_.make_reserves = true;
  RoomLook look = DoRoomWork(work_);
  ASSERT_OK(look.status);
  ASSERT_EQ(look.reserves.size(), 1u) << "pg_wal lies on the same file system";
  EXPECT_EQ(look.reserves[0].path, path);
  EXPECT_THAT(look.reserves[0].size_bytes, Ge(kMiB));
  work_.give_back = {"data"};
  look = DoRoomWork(work_);
  EXPECT_EQ(look.reserves[0].size_bytes, 0u);
  EXPECT_EQ(look.reserves[0].reason, kReserveGiven);
  EXPECT_FALSE(base::PathExists(path));
  work_.give_back.clear();
  EXPECT_THAT(DoRoomWork(work_).reserves[0].size_bytes, Ge(kMiB));
  work_.reserve = {};
  EXPECT_EQ(DoRoomWork(work_).reserves[0].size_bytes, 0u) << "switched off";
  EXPECT_FALSE(base::PathExists(path));
}

TEST_F(RoomWorkTest, AServerThatCannotStartIsGivenTheReserveAndIsReadOnly) {
  base::AgentConfig config;
  config.pg_data_dir = work_.data_dir;
  config.disk_read_only_at = 97;
  EXPECT_FALSE(MakeRoomToStart(config)) << "there is none";
  EXPECT_FALSE(ReadOnlyFile());
  work_.make_reserves = true;
  DoRoomWork(work_);
  EXPECT_TRUE(MakeRoomToStart(config));
  EXPECT_TRUE(ReadOnlyFile());
  EXPECT_FALSE(base::PathExists(dir_.File("pg/.metal-reserve-data")));
}

TEST_F(RoomWorkTest, ADirectoryThatIsGoneIsAnErrorAndChangesNothing) {
  work_.data_dir = dir_.File("absent");
  work_.read_only = true;
  work_.make_reserves = true;
  EXPECT_FALSE(DoRoomWork(work_).status.ok());
  EXPECT_FALSE(base::PathExists(work_.data_dir));
}

}  // namespace
}  // namespace metal::node
