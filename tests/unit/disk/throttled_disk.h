// ThrottledDisk: a real filesystem on a loop device whose I/O the kernel can be told to hold, for
// this process alone. Needs root, a free loop device and a controller of I/O: blkio of cgroup v1
// or io of v2; reason() says what is missing. Threading: not thread-safe.
#pragma once

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "agent/base/subprocess.h"
#include "tests/harness/temp_dir.h"

namespace metal::testing {

class ThrottledDisk {
 public:
  // `filesystem` is "ext4" or "xfs". On failure reason() is not empty.
  explicit ThrottledDisk(const std::string& filesystem) { Prepare(filesystem); }

  ~ThrottledDisk() {
    Hold(false);
    if (!group_.empty()) std::ofstream(root_ + "/cgroup.procs") << getpid();
    for (int i = 0; mounted_ && i < 200 && umount2(mount_point().c_str(), 0) != 0; ++i) {
      base::RealClock().Sleep(absl::Milliseconds(50));  // a prober still closes its file
    }
    if (!loop_.empty()) Run({"losetup", "-d", loop_});
    if (!group_.empty()) rmdir(group_.c_str());
  }
  ThrottledDisk(const ThrottledDisk&) = delete;
  ThrottledDisk& operator=(const ThrottledDisk&) = delete;

  const std::string& reason() const { return reason_; }
  std::string mount_point() const { return dir_.File("mnt"); }
  std::string loop_name() const { return loop_.substr(loop_.rfind('/') + 1); }

  // On: I/O of this process to the disk stays in the kernel (two bytes a second: v2 takes no less).
  // Off: it flows again.
  bool Hold(bool on) {
    if (group_.empty()) return false;
    if (root_ == kV2)
      return Put("io.max", number_ + (on ? " rbps=2 wbps=2" : " rbps=max wbps=max"));
    const std::string rule = number_ + (on ? " 2" : " 0");
    return Put("blkio.throttle.read_bps_device", rule) &&
           Put("blkio.throttle.write_bps_device", rule);
  }

 private:
  static constexpr std::string_view kV1 = "/sys/fs/cgroup/blkio", kV2 = "/sys/fs/cgroup";

  // The hierarchy with a controller that holds I/O back; empty when this machine has none.
  static std::string FindRoot() {
    const std::string v1(kV1), v2(kV2);
    if (base::PathExists(v1 + "/blkio.throttle.read_bps_device")) return v1;
    std::ifstream controllers(v2 + "/cgroup.controllers");
    for (std::string word; controllers >> word;) {
      if (word == "io") return v2;
    }
    return "";
  }

  void Prepare(const std::string& filesystem) {
    if (geteuid() != 0) return Give("needs root");
    root_ = FindRoot();
    if (root_.empty()) return Give("needs blkio of cgroup v1 or io of v2");
    const std::string image = dir_.Write("image", "");
    if (truncate(image.c_str(), 320 << 20) != 0) return Give("cannot make an image");
    if (!Run({"losetup", "-f", "--show", image}, &loop_)) return;
    if (!Run({"mkfs." + filesystem, "-q", loop_})) return;
    base::MakeDirectories(mount_point()).IgnoreError();
    if (mount(loop_.c_str(), mount_point().c_str(), filesystem.c_str(), 0, nullptr) != 0) {
      return Give("cannot mount " + loop_);
    }
    mounted_ = true;
    struct stat info {};
    if (stat(loop_.c_str(), &info) != 0) return Give("cannot stat " + loop_);
    number_ = std::to_string(major(info.st_rdev)) + ":" + std::to_string(minor(info.st_rdev));
    if (root_ == kV2) {
      // With memory the kernel knows whose pages fsync writes; without, it holds back direct I/O.
      std::ofstream(root_ + "/cgroup.subtree_control") << "+io" << std::flush;
      std::ofstream(root_ + "/cgroup.subtree_control") << "+memory" << std::flush;
    }
    group_ = root_ + "/metal-test-" + std::to_string(getpid());
    if (mkdir(group_.c_str(), 0755) != 0 || !Put("cgroup.procs", std::to_string(getpid()))) {
      return Give("cannot use " + group_);
    }
  }
  void Give(std::string reason) { reason_ = std::move(reason); }
  bool Put(const std::string& file, const std::string& text) {
    std::ofstream out(group_ + "/" + file);
    out << text << std::flush;
    return out.good();
  }
  bool Run(std::vector<std::string> argv, std::string* output = nullptr) {
    base::SubprocessOptions options;
    options.argv = std::move(argv);
    const auto result = base::RunSubprocess(options);
    if (!result.ok() || !result->ok()) {
      Give(options.argv[0] + ": " +
           (result.ok() ? result->LastLine() : std::string(result.status().message())));
      return false;
    }
    if (output != nullptr)
      *output = result->standard_output.substr(0, result->standard_output.find('\n'));
    return true;
  }

  TempDir dir_;
  std::string reason_, loop_, number_, root_, group_;
  bool mounted_ = false;
};

}  // namespace metal::testing
