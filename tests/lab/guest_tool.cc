// What the guest of the lab needs besides busybox, in one static program:
//
//   relay PORT SOCKET        every TCP connection to PORT goes to the unix socket
//   append FILE TOLD PAUSE   writes numbered records for ever, each made durable, PAUSE ms apart,
//                            and tells in TOLD how far
//   verify FILE COUNT        how many of the first COUNT records of `append` are lost
//   extents FILE             where the file's bytes are on the file system's device, in 512-byte
//                            sectors
//   stuck PID TOLD           as long as it lives: how long each thread of it, and of the others
//                            that run the same program now, was in uninterruptible sleep at the
//                            longest, "MILLISECONDS NAME"
//   terminate PID LIMIT_MS   SIGTERM; prints the milliseconds until the process is gone, or is
//                            dead and "held" by threads that a disk does not let go, or "alive"
//   shutdown DIRECTORY       shuts its file system down as an error of the device would (XFS, ext4)
//
// Exit code 0; 1 with a line on standard error.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr uint64_t kSlots = 4096;  // the file is a ring of so many records, as WAL is recycled
constexpr size_t kRecord = 4096;

int Fail(const std::string& what) {
  std::fprintf(stderr, "guest_tool: %s: %s\n", what.c_str(), strerror(errno));
  return 1;
}

int64_t Milliseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

// --- relay ---

bool Copy(int from, int to) {
  char bytes[65536];
  const ssize_t size = read(from, bytes, sizeof bytes);
  for (ssize_t sent = 0; sent < size;) {
    const ssize_t part = write(to, bytes + sent, static_cast<size_t>(size - sent));
    if (part <= 0) return false;
    sent += part;
  }
  return size > 0;
}

int Carry(int client, const char* path) {
  const int server = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path, std::min(strlen(path), sizeof address.sun_path - 1));
  if (connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return 1;
  const int one = 1;
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  pollfd ends[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
  while (poll(ends, 2, -1) > 0) {
    if (ends[0].revents != 0 && !Copy(client, server)) break;
    if (ends[1].revents != 0 && !Copy(server, client)) break;
  }
  return 0;
}

int Relay(uint16_t port, const char* path) {
  std::signal(SIGCHLD, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 16) != 0) {
    return Fail("listen");
  }
  while (true) {
    const int client = accept(listener, nullptr, nullptr);
    if (client < 0) continue;
    if (fork() == 0) {
      close(listener);
      _exit(Carry(client, path));
    }
    close(client);
  }
}

// --- append and verify ---

// A record is its number, repeated.
void Fill(std::vector<uint64_t>& record, uint64_t number) {
  for (uint64_t& word : record) word = number;
}

int Append(const char* path, const char* told_path, int pause_ms) {
  const int file = open(path, O_RDWR | O_CREAT, 0600);
  const int told = open(told_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0 || told < 0) return Fail("open");
  std::vector<uint64_t> record(kRecord / sizeof(uint64_t));
  for (uint64_t slot = 0; slot < kSlots; ++slot) {
    if (write(file, record.data(), kRecord) != ssize_t{kRecord}) return Fail("prepare");
  }
  if (fsync(file) != 0) return Fail("prepare");
  for (uint64_t number = 1;; ++number) {
    Fill(record, number);
    const auto place = static_cast<off_t>(number % kSlots * kRecord);
    const char* failed = nullptr;
    if (pwrite(file, record.data(), kRecord, place) != ssize_t{kRecord}) failed = "write";
    if (failed == nullptr && fdatasync(file) != 0) failed = "fdatasync";
    // What failed once is not tried again: a second fdatasync would say that all is well.
    if (failed != nullptr) return Fail(failed);
    const std::string text = std::to_string(number) + "\n";
    if (pwrite(told, text.data(), text.size(), 0) < 0) return Fail("tell");
    if (pause_ms > 0) poll(nullptr, 0, pause_ms);
  }
}

int Verify(const char* path, uint64_t count) {
  const int file = open(path, O_RDONLY);
  if (file < 0) return Fail("open");
  std::vector<uint64_t> record(kRecord / sizeof(uint64_t)), expected(record.size());
  uint64_t lost = 0;
  const uint64_t first = count > kSlots ? count - kSlots + 1 : 1;
  for (uint64_t number = first; number <= count; ++number) {
    const auto place = static_cast<off_t>(number % kSlots * kRecord);
    const bool whole = pread(file, record.data(), kRecord, place) == ssize_t{kRecord};
    // Laps later is what was written after `count` was asked for.
    const uint64_t found = record.front();
    Fill(expected, found);
    if (!whole || record != expected || found < number || found % kSlots != number % kSlots) ++lost;
  }
  std::printf("%llu lost of %llu\n", static_cast<unsigned long long>(lost),
              static_cast<unsigned long long>(count));
  return 0;
}

// --- the rest ---

int Extents(const char* path) {
  const int file = open(path, O_RDONLY);
  if (file < 0) return Fail("open");
  constexpr uint32_t kMost = 512;
  std::vector<char> memory(sizeof(fiemap) + kMost * sizeof(fiemap_extent));
  auto* map = reinterpret_cast<fiemap*>(memory.data());
  map->fm_length = FIEMAP_MAX_OFFSET;
  map->fm_extent_count = kMost;
  if (ioctl(file, FS_IOC_FIEMAP, map) != 0) return Fail("FIEMAP");
  for (uint32_t index = 0; index < map->fm_mapped_extents; ++index) {
    const fiemap_extent& extent = map->fm_extents[index];
    std::printf("%llu %llu\n", static_cast<unsigned long long>(extent.fe_physical / 512),
                static_cast<unsigned long long>(extent.fe_length / 512));
  }
  return 0;
}

// Name of a thread that is in uninterruptible sleep; empty for any other.
std::string StuckName(const std::string& task) {
  char line[512] = {};
  const int file = open((task + "/stat").c_str(), O_RDONLY);
  if (file < 0) return "";
  const ssize_t size = read(file, line, sizeof line - 1);
  close(file);
  const std::string_view text(line, size > 0 ? static_cast<size_t>(size) : 0);
  const size_t open_at = text.find('('), close_at = text.rfind(')');
  if (close_at == std::string_view::npos || !text.substr(close_at).starts_with(") D")) return "";
  return std::string(text.substr(open_at + 1, close_at - open_at - 1));
}

// Processes that run the program which process `pid` runs: the agent and its helpers.
std::vector<std::string> SameProgram(const std::string& pid) {
  const auto program = [](const std::string& process) {
    char path[512] = {};
    const ssize_t size = readlink(("/proc/" + process + "/exe").c_str(), path, sizeof path - 1);
    return std::string(path, size > 0 ? static_cast<size_t>(size) : 0);
  };
  const std::string wanted = program(pid);
  std::vector<std::string> found;
  DIR* directory = opendir("/proc");
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name == pid ||
        (atoi(entry->d_name) > 0 && !wanted.empty() && program(entry->d_name) == wanted))
      found.emplace_back(name);
  }
  closedir(directory);
  return found;
}

int WatchStuck(const std::string& pid, const char* told_path) {
  std::map<std::string, int64_t> since;    // thread: when it was first seen so
  std::map<std::string, int64_t> longest;  // name: milliseconds
  const std::vector<std::string> processes = SameProgram(pid);
  while (access(("/proc/" + pid).c_str(), F_OK) == 0) {
    std::map<std::string, int64_t> still;
    for (const std::string& process : processes) {
      const std::string tasks = "/proc/" + process + "/task";
      DIR* directory = opendir(tasks.c_str());
      if (directory == nullptr) continue;
      while (const dirent* entry = readdir(directory)) {
        if (entry->d_name[0] == '.') continue;
        std::string name = StuckName(tasks + "/" + entry->d_name);
        if (name.empty()) continue;
        if (process != pid) name = "helper's " + name;
        const auto known = since.find(entry->d_name);
        const int64_t begin = known == since.end() ? Milliseconds() : known->second;
        still[entry->d_name] = begin;
        longest[name] = std::max(longest[name], Milliseconds() - begin);
      }
      closedir(directory);
    }
    since = std::move(still);
    std::string text;
    for (const auto& [name, taken] : longest) text += std::to_string(taken) + " " + name + "\n";
    const int told = open(told_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (write(told, text.data(), text.size()) < 0) return Fail("tell");
    close(told);
    poll(nullptr, 0, 200);
  }
  return 0;
}

// Its main thread has ended; others may be held by a disk.
bool IsZombie(pid_t pid) {
  char line[512] = {};
  const int file = open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY);
  if (file < 0) return false;
  const ssize_t size = read(file, line, sizeof line - 1);
  close(file);
  const std::string_view text(line, size > 0 ? static_cast<size_t>(size) : 0);
  const size_t close_at = text.rfind(')');
  return close_at != std::string_view::npos && text.substr(close_at).starts_with(") Z");
}

int Terminate(pid_t pid, int limit_ms) {
  const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (process < 0) return Fail("pidfd_open");
  const int64_t begin = Milliseconds();
  if (kill(pid, SIGTERM) != 0) return Fail("kill");
  constexpr int kLookMs = 10, kHeldMs = 500;  // threads that end in order take a moment as well
  int64_t dead = 0;                           // when the main thread was first seen to have ended
  while (Milliseconds() - begin < limit_ms || dead != 0) {
    pollfd end{process, POLLIN, 0};
    const bool gone = poll(&end, 1, kLookMs) > 0;
    const int64_t now = Milliseconds();
    if (!gone && dead == 0 && IsZombie(pid)) dead = now;
    if (!gone && (dead == 0 || now - dead < kHeldMs)) continue;
    std::printf("%lld%s\n", static_cast<long long>((gone ? now : dead) - begin),
                gone ? "" : " held");
    return 0;
  }
  std::printf("alive\n");
  return 0;
}

int ShutDown(const char* directory) {
  const int fd = open(directory, O_RDONLY | O_DIRECTORY);
  uint32_t no_flush_of_the_log = 2;
  if (fd < 0 || ioctl(fd, _IOR('X', 125, uint32_t), &no_flush_of_the_log) != 0) {
    return Fail("shut down");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "relay" && argc == 4) return Relay(static_cast<uint16_t>(atoi(argv[2])), argv[3]);
  if (command == "append" && argc == 5) return Append(argv[2], argv[3], atoi(argv[4]));
  if (command == "verify" && argc == 4) return Verify(argv[2], strtoull(argv[3], nullptr, 10));
  if (command == "extents" && argc == 3) return Extents(argv[2]);
  if (command == "stuck" && argc == 4) return WatchStuck(argv[2], argv[3]);
  if (command == "terminate" && argc == 4) return Terminate(atoi(argv[2]), atoi(argv[3]));
  if (command == "shutdown" && argc == 3) return ShutDown(argv[2]);
  std::fputs("guest_tool: see the comment of its source\n", stderr);
  return 1;
}
