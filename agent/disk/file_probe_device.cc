// The probe file on a real filesystem, driven by io_uring or, without it, by plain calls of the
// prober's thread. Declared in probe_device.h.
#include <fcntl.h>
#include <liburing.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "agent/base/check.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/disk/probe_device.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace metal::disk {
namespace {

constexpr uint64_t kWakeTag = UINT64_MAX;
constexpr uint32_t kRingEntries = 2 * kProbeSlots;
constexpr size_t kFileSize = size_t{kProbeFileBlocks} * kProbeBlockSize;
constexpr size_t kFillChunk = 256 << 10;

// The thread sanitizer does not see liburing unmap a ring by a bare system call: without a word
// from us it takes the next ring at the same address for memory that two threads share.
#if defined(__SANITIZE_THREAD__)
char ring_history;
void RingOpened() { __tsan_acquire(&ring_history); }
void RingClosed() { __tsan_release(&ring_history); }
#else
void RingOpened() {}
void RingClosed() {}
#endif

// Closing alone keeps the lock as long as a child that another thread forks just now holds a copy.
void Unlock(int fd) { flock(fd, LOCK_UN); }

// Anonymous memory for the slots' buffers: never returned to the allocator while the device may
// still write to it.
class SlotMemory {
 public:
  SlotMemory() {
    void* memory = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    METAL_CHECK(memory != MAP_FAILED);
    bytes_ = static_cast<std::byte*>(memory);
  }
  ~SlotMemory() { munmap(bytes_, kSize); }
  SlotMemory(const SlotMemory&) = delete;
  SlotMemory& operator=(const SlotMemory&) = delete;
  std::span<std::byte> Slot(uint32_t slot) {
    return {bytes_ + size_t{slot} * kProbeBlockSize, kProbeBlockSize};
  }

 private:
  static constexpr size_t kSize = size_t{kProbeSlots} * kProbeBlockSize;
  std::byte* bytes_;
};

class FileProbeDevice final : public ProbeDevice {
 public:
  FileProbeDevice(std::string path, ProbeIo io)
      : path_(std::move(path)), io_(io), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    METAL_CHECK(wake_.valid());
  }
  ~FileProbeDevice() override { Close(); }

  absl::Status Open(const std::function<void()>& before_step) override;
  std::span<std::byte> Buffer(uint32_t slot) override { return memory_.Slot(slot); }
  void StartRead(uint32_t slot, uint32_t block) override;
  void StartWrite(uint32_t slot, uint32_t block) override;
  void Wait(absl::Duration timeout, std::vector<ProbeCompletion>& completions) override;
  void Wake() override {
    const uint64_t one = 1;
    // A full counter means that a wake-up is pending already.
    [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
  }
  bool WasCut() override;
  void Close() override;

 private:
  absl::Status CheckFilesystem();
  absl::Status OpenLocked(const std::function<void()>& before_step);
  absl::Status Lock(int fd);
  absl::StatusOr<base::UniqueFd> OpenTemporary(const std::string& temporary);
  // `missing`: there was no file; else one that is not whole is replaced.
  absl::Status CreateFile(bool missing, const std::function<void()>& before_step);
  absl::StatusOr<base::UniqueFd> OpenDirect(int flags);
  absl::Status OpenRing();
  void CloseRing();
  void ArmWake();
  void Submit();
  bool IsReadOnly() const;
  void FinishNow(uint32_t slot, ssize_t result);
  void WaitSynchronous(absl::Duration timeout, std::vector<ProbeCompletion>& completions);
  void TakeCompletions(std::vector<ProbeCompletion>& completions);

  const std::string path_;
  const ProbeIo io_;
  base::UniqueFd wake_;
  SlotMemory memory_;
  base::UniqueFd lock_;                // holds the flock
  base::UniqueFd read_;                // O_DIRECT
  base::UniqueFd write_;               // O_DIRECT | O_DSYNC
  std::string write_link_;             // of its path, as the kernel has it
  int64_t blocks_ = 0;                 // of 512 bytes, that the file had when it was opened
  std::vector<ProbeCompletion> done_;  // not by the ring
  bool ring_open_ = false;             // false: transfers are done inside Start
  bool wake_armed_ = false;
  io_uring ring_{};
};

absl::Status FileProbeDevice::CheckFilesystem() {
  const std::string directory = base::DirectoryOf(path_);
  struct statfs info {};
  if (statfs(directory.c_str(), &info) != 0) return base::ErrnoStatus(errno, "statfs", directory);
  if (info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "{} is in memory (tmpfs): no device to probe", directory);
  }
  return absl::OkStatus();
}

absl::Status FileProbeDevice::OpenLocked(const std::function<void()>& before_step) {
  absl::StatusOr<base::UniqueFd> file = base::OpenFile(path_, O_RDONLY | O_NOFOLLOW);
  const bool missing = absl::IsNotFound(file.status());
  if (!missing) METAL_RETURN_IF_ERROR(file.status());
  bool whole = false;
  if (!missing) {
    struct stat info {};
    if (fstat(file->get(), &info) != 0) return base::ErrnoStatus(errno, "stat", path_);
    if (!S_ISREG(info.st_mode)) {
      return base::Error(absl::StatusCode::kInvalidArgument,
                         "probe file {} is not a regular file. HINT: remove it", path_);
    }
    // Blocks are counted in 512 bytes: a copy with holes would make every probe write allocate
    // space.
    whole = static_cast<size_t>(info.st_size) == kFileSize &&
            static_cast<size_t>(info.st_blocks) * 512 >= kFileSize;
    METAL_RETURN_IF_ERROR(Lock(file->get()));
  }
  if (!whole) return CreateFile(missing, before_step);
  lock_ = *std::move(file);
  return absl::OkStatus();
}

// Empty, and nobody else's: not cut before it is locked, since another process may be about to give
// it its name. One that did so between the opening and the lock has made a file with which it
// probes now.
absl::StatusOr<base::UniqueFd> FileProbeDevice::OpenTemporary(const std::string& temporary) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd file,
                         base::OpenFile(temporary, O_RDWR | O_CREAT | O_NOFOLLOW));
  const absl::Status taken =
      base::Error(absl::StatusCode::kUnavailable, "another process prepares {}", temporary);
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return errno == EWOULDBLOCK ? taken : base::ErrnoStatus(errno, "lock", temporary);
  }
  struct stat ours {};
  struct stat named {};
  if (fstat(file.get(), &ours) != 0) return base::ErrnoStatus(errno, "stat", temporary);
  if (stat(temporary.c_str(), &named) != 0) {
    return errno == ENOENT ? taken : base::ErrnoStatus(errno, "stat", temporary);
  }
  if (ours.st_ino != named.st_ino) return taken;
  if (ftruncate(file.get(), 0) != 0) return base::ErrnoStatus(errno, "truncate", temporary);
  return file;
}

// Under a temporary name until every block is written and synced: after a crash the file is whole
// or is not there.
absl::Status FileProbeDevice::CreateFile(bool missing, const std::function<void()>& before_step) {
  const std::string temporary = path_ + ".new";
  METAL_ASSIGN_OR_RETURN(base::UniqueFd file, OpenTemporary(temporary));
  if (missing && access(path_.c_str(), F_OK) == 0) {
    unlink(temporary.c_str());
    return base::Error(absl::StatusCode::kUnavailable, "another process has just made {}", path_);
  }
  // Reserved first: a file that grew by appending keeps blocks past its end on XFS, and then the
  // last close of a writer waits for direct I/O under way, so that a process with a stuck probe
  // could not even be killed.
  before_step();
  if (fallocate(file.get(), 0, 0, kFileSize) != 0 && errno != EOPNOTSUPP) {
    return base::ErrnoStatus(errno, "reserve space for", temporary);
  }
  const std::string zeros(kFillChunk, '\0');
  for (size_t done = 0; done < kFileSize; done += kFillChunk) {
    before_step();
    METAL_RETURN_IF_ERROR(base::WriteAll(file.get(), zeros, temporary));
    if (fdatasync(file.get()) != 0) return base::ErrnoStatus(errno, "sync", temporary);
  }
  before_step();
  if (fsync(file.get()) != 0) return base::ErrnoStatus(errno, "sync", temporary);
  if (rename(temporary.c_str(), path_.c_str()) != 0) {
    return base::ErrnoStatus(errno, "rename to", path_);
  }
  before_step();
  METAL_RETURN_IF_ERROR(base::SyncDirectory(base::DirectoryOf(path_)));
  Unlock(file.get());
  METAL_RETURN_IF_ERROR(file.Close());
  METAL_ASSIGN_OR_RETURN(lock_, base::OpenFile(path_, O_RDONLY | O_NOFOLLOW));
  return Lock(lock_.get());
}

absl::Status FileProbeDevice::Lock(int fd) {
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  if (errno != EWOULDBLOCK) return base::ErrnoStatus(errno, "lock", path_);
  return base::Error(absl::StatusCode::kUnavailable, "another process probes with {}", path_);
}

absl::StatusOr<base::UniqueFd> FileProbeDevice::OpenDirect(int flags) {
  // Without O_NOATIME every read would dirty the inode; only the owner may ask for it.
  absl::StatusOr<base::UniqueFd> file =
      base::OpenFile(path_, flags | O_DIRECT | O_NOATIME | O_NOFOLLOW);
  if (absl::IsPermissionDenied(file.status())) {
    file = base::OpenFile(path_, flags | O_DIRECT | O_NOFOLLOW);
  }
  if (absl::IsInvalidArgument(file.status())) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "the filesystem of {} does not support O_DIRECT", path_);
  }
  return file;
}

absl::Status FileProbeDevice::OpenRing() {
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int result = io_uring_queue_init_params(kRingEntries, &ring_, &parameters);
  if (result == -EINVAL) {  // a kernel before 6.1
    parameters = {};
    result = io_uring_queue_init_params(kRingEntries, &ring_, &parameters);
  }
  if (result == -ENOSYS || result == -EPERM || result == -EINVAL) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "io_uring: {}. HINT: sysctl kernel.io_uring_disabled, seccomp profile",
                       strerror(-result));
  }
  if (result < 0) return base::ErrnoStatus(-result, "set up", "io_uring");
  ring_open_ = true;
  RingOpened();
  if ((parameters.features & IORING_FEAT_EXT_ARG) == 0) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "io_uring of this kernel is too old (5.11 or newer is needed)");
  }
  wake_armed_ = false;
  return absl::OkStatus();
}

absl::Status FileProbeDevice::Open(const std::function<void()>& before_step) {
  Close();
  before_step();
  METAL_RETURN_IF_ERROR(CheckFilesystem());
  before_step();
  METAL_RETURN_IF_ERROR(OpenLocked(before_step));
  before_step();
  METAL_ASSIGN_OR_RETURN(read_, OpenDirect(O_RDONLY));
  METAL_ASSIGN_OR_RETURN(write_, OpenDirect(O_WRONLY | O_DSYNC));
  write_link_ = fmt::format("/proc/self/fd/{}", write_.get());
  struct stat info {};
  if (fstat(read_.get(), &info) != 0) return base::ErrnoStatus(errno, "stat", path_);
  blocks_ = info.st_blocks;
  if (io_ == ProbeIo::kSynchronous) return absl::OkStatus();
  const absl::Status ring = OpenRing();
  if (!absl::IsUnimplemented(ring)) return ring;
  CloseRing();
  base::LogInfo("event=disk.probe_without_ring path={} message=\"{}\"", path_,
                std::string(ring.message()));
  return absl::OkStatus();
}

bool FileProbeDevice::WasCut() {
  struct stat info {};
  if (fstat(read_.get(), &info) != 0) return false;
  // Fewer blocks than it should have, and not from the beginning (a file system that compresses).
  const bool holes =
      static_cast<size_t>(info.st_blocks) * 512 < kFileSize && info.st_blocks < blocks_;
  return static_cast<size_t>(info.st_size) < kFileSize || holes;
}

void FileProbeDevice::CloseRing() {
  if (!ring_open_) return;
  RingClosed();
  io_uring_queue_exit(&ring_);
  ring_open_ = false;
}

void FileProbeDevice::Close() {
  CloseRing();
  done_.clear();
  read_.Reset();
  write_.Reset();
  if (lock_.valid()) Unlock(lock_.get());
  lock_.Reset();
}

void FileProbeDevice::Submit() {
  // What a full or busy kernel does not take stays in the queue for the next Wait.
  io_uring_submit(&ring_);
}

void FileProbeDevice::FinishNow(uint32_t slot, ssize_t result) {
  done_.push_back({slot, static_cast<int32_t>(result < 0 ? -errno : result)});
}

void FileProbeDevice::StartRead(uint32_t slot, uint32_t block) {
  if (!ring_open_) {
    return FinishNow(slot, pread(read_.get(), Buffer(slot).data(), kProbeBlockSize,
                                 static_cast<off_t>(uint64_t{block} * kProbeBlockSize)));
  }
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  METAL_CHECK(entry != nullptr);
  io_uring_prep_read(entry, read_.get(), Buffer(slot).data(), kProbeBlockSize,
                     uint64_t{block} * kProbeBlockSize);
  io_uring_sqe_set_data64(entry, slot);
  Submit();
}

// A file system that becomes read-only lets those write on who have a file open, and need not keep
// what they write: ext4's fsync then answers well and does nothing. So it is asked whether anybody
// could open the file for writing now, which looks at memory alone.
bool FileProbeDevice::IsReadOnly() const {
  return faccessat(AT_FDCWD, write_link_.c_str(), W_OK, 0) != 0 && errno == EROFS;
}

void FileProbeDevice::StartWrite(uint32_t slot, uint32_t block) {
  if (IsReadOnly()) {
    done_.push_back({slot, -EROFS});
    return;
  }
  if (!ring_open_) {
    return FinishNow(slot, pwrite(write_.get(), Buffer(slot).data(), kProbeBlockSize,
                                  static_cast<off_t>(uint64_t{block} * kProbeBlockSize)));
  }
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  METAL_CHECK(entry != nullptr);
  io_uring_prep_write(entry, write_.get(), Buffer(slot).data(), kProbeBlockSize,
                      uint64_t{block} * kProbeBlockSize);
  io_uring_sqe_set_data64(entry, slot);
  Submit();
}

void FileProbeDevice::ArmWake() {
  if (wake_armed_) return;
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  METAL_CHECK(entry != nullptr);
  io_uring_prep_poll_add(entry, wake_.get(), POLLIN);
  io_uring_sqe_set_data64(entry, kWakeTag);
  wake_armed_ = true;
}

void FileProbeDevice::TakeCompletions(std::vector<ProbeCompletion>& completions) {
  io_uring_cqe* entry = nullptr;
  while (io_uring_peek_cqe(&ring_, &entry) == 0 && entry != nullptr) {
    const uint64_t tag = io_uring_cqe_get_data64(entry);
    if (tag == kWakeTag) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t taken = read(wake_.get(), &count, sizeof(count));
      wake_armed_ = false;
    } else {
      completions.push_back({static_cast<uint32_t>(tag), entry->res});
    }
    io_uring_cqe_seen(&ring_, entry);
  }
}

void FileProbeDevice::WaitSynchronous(absl::Duration timeout,
                                      std::vector<ProbeCompletion>& completions) {
  if (done_.empty()) {
    const timespec limit = absl::ToTimespec(timeout);
    pollfd wake{.fd = wake_.get(), .events = POLLIN, .revents = 0};
    uint64_t count = 0;
    if (ppoll(&wake, 1, &limit, nullptr) > 0) {
      [[maybe_unused]] const ssize_t taken = read(wake_.get(), &count, sizeof(count));
    }
  }
  completions.insert(completions.end(), done_.begin(), done_.end());
  done_.clear();
}

void FileProbeDevice::Wait(absl::Duration timeout, std::vector<ProbeCompletion>& completions) {
  if (!ring_open_ || !done_.empty()) {
    WaitSynchronous(std::max(timeout, absl::ZeroDuration()), completions);
    if (ring_open_) TakeCompletions(completions);
    return;
  }
  ArmWake();
  if (io_uring_sq_ready(&ring_) > 0) Submit();
  const timespec limit = absl::ToTimespec(std::max(timeout, absl::ZeroDuration()));
  __kernel_timespec wait{.tv_sec = limit.tv_sec, .tv_nsec = limit.tv_nsec};
  io_uring_cqe* first = nullptr;
  const int result = io_uring_wait_cqe_timeout(&ring_, &first, &wait);
  if (result < 0 && result != -ETIME && result != -EINTR) {
    // The ring itself is in trouble: the age of what is outstanding will tell. Do not spin
    // meanwhile.
    pollfd wake{.fd = wake_.get(), .events = POLLIN, .revents = 0};
    poll(&wake, 1, 100);
  }
  TakeCompletions(completions);
}

}  // namespace

std::unique_ptr<ProbeDevice> MakeFileProbeDevice(const std::string& path, ProbeIo io) {
  return std::make_unique<FileProbeDevice>(path, io);
}

}  // namespace metal::disk
