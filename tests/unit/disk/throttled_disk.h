// ThrottledDisk: a real filesystem on a loop device whose I/O the kernel can be told to hold
// (cgroup v1 blk-throttle), for this process alone. Needs root, a free loop device and the blkio
// controller; Unavailable() says what is missing. Threading: not thread-safe.
#pragma once

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>

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
    std::ofstream("/sys/fs/cgroup/blkio/cgroup.procs") << getpid();
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

  // On: I/O of this process to the disk stays in the kernel (one byte a second). Off: it flows
  // again.
  bool Hold(bool on) {
    const std::string rule = number_ + (on ? " 1" : " 0");
    return !group_.empty() && Put("blkio.throttle.read_bps_device", rule) &&
           Put("blkio.throttle.write_bps_device", rule);
  }

 private:
  void Prepare(const std::string& filesystem) {
    if (geteuid() != 0) return Give("needs root");
    if (!base::PathExists("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device")) {
      return Give("needs the cgroup v1 blkio controller with blk-throttle");
    }
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
    group_ = "/sys/fs/cgroup/blkio/metal-test-" + std::to_string(getpid());
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
  std::string reason_, loop_, number_, group_;
  bool mounted_ = false;
};

}  // namespace metal::testing
