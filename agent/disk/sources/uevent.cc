#include "agent/disk/sources/uevent.h"

#include <linux/netlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/base/status.h"
#include "agent/disk/sources/text_pattern.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr unsigned kKernelGroup = 1;
constexpr size_t kMaxMessage = 16384;  // the kernel's buffer is 2 KiB
constexpr int kReceiveBuffer = 1 << 20;

std::string Value(const Uevent& event, const std::string& key) {
  const auto found = event.values.find(key);
  return found == event.values.end() ? "" : found->second;
}

// What a drive reports by an asynchronous event: bits 2:0 are its kind, 15:8 what of it.
std::optional<FaultClass> ClassOfAsyncEvent(uint64_t result, std::string& what) {
  const uint64_t kind = result & 0x7, info = (result >> 8) & 0xff;
  if (kind == 0) {  // error: 03h persistent, 04h transient internal error
    what = "reports an internal error";
    if (info == 0x03 || info == 0x04) return FaultClass::kControllerReset;
    return std::nullopt;
  }
  if (kind != 1) return std::nullopt;
  switch (info) {
    case 0x00:
      what = "reports that it is no longer reliable";
      return FaultClass::kUnreliable;
    case 0x01:
      what = "reports a temperature beyond its threshold";
      return FaultClass::kOverheating;
    case 0x02:
      what = "reports that its spare blocks are below the threshold";
      return FaultClass::kSpareLow;
    default:
      return std::nullopt;
  }
}

Evidence MakeEvidence(FaultClass fault_class, const std::string& disk, std::string text,
                      absl::Time now) {
  Evidence evidence;
  evidence.fault_class = fault_class;
  evidence.witness = Witness::kUevent;
  evidence.device = disk;
  evidence.text = std::move(text);
  evidence.time = now;
  return evidence;
}

// A namespace's disk, or the whole of another disk; of partitions only their disk counts.
std::optional<UeventVerdict> JudgeBlock(const Uevent& event, const std::string& disk,
                                        absl::Time now) {
  UeventVerdict verdict;
  verdict.disk = disk;
  if (event.action == "remove" || event.action == "offline") {
    verdict.evidence =
        MakeEvidence(FaultClass::kGone, disk,
                     fmt::format("the kernel removed {} ({})", disk, event.action), now);
  } else if (event.action == "add" || event.action == "online") {
    verdict.came = true;
  } else if (event.action == "change" && Value(event, "DISK_RO") == "1") {
    verdict.evidence = MakeEvidence(FaultClass::kReadOnly, disk,
                                    fmt::format("the kernel made {} read-only", disk), now);
    verdict.evidence->delta = 1;  // a drive that comes back writable says so in sysfs alone
  } else if (event.action == "change" && Value(event, "DISK_RO") == "0") {
    verdict.evidence = MakeEvidence(FaultClass::kReadOnly, disk,
                                    fmt::format("the kernel made {} writable again", disk), now);
    verdict.evidence->clears = true;
  } else {
    return std::nullopt;
  }
  return verdict;
}

std::optional<UeventVerdict> JudgeController(const Uevent& event, const std::string& disk,
                                             absl::Time now) {
  UeventVerdict verdict;
  verdict.disk = disk;
  if (event.action == "remove") {
    verdict.evidence = MakeEvidence(
        FaultClass::kGone, disk,
        fmt::format("the kernel removed {}, the controller of {}", event.name(), disk), now);
    return verdict;
  }
  const auto result = ParseTextNumber(Value(event, "NVME_AEN"));
  if (!result || *result < 0) return std::nullopt;
  std::string what;
  const auto fault_class = ClassOfAsyncEvent(static_cast<uint64_t>(*result), what);
  if (!fault_class) return std::nullopt;
  verdict.evidence = MakeEvidence(*fault_class, disk,
                                  fmt::format("{} {} (event {:#x})", disk, what, *result), now);
  verdict.evidence->delta = 1;  // it tells of something that happened, and never of its end
  return verdict;
}

}  // namespace

std::string Uevent::name() const {
  std::string name = device_path.substr(device_path.rfind('/') + 1);
  std::replace(name.begin(), name.end(), '!', '/');
  return name;
}

std::optional<Uevent> ParseUevent(std::string_view message) {
  const size_t head_end = message.find('\0');
  if (head_end == std::string_view::npos) return std::nullopt;
  const std::string_view head = message.substr(0, head_end);
  const size_t at = head.find('@');
  // Messages of udev begin with "libudev".
  if (at == std::string_view::npos || at == 0) return std::nullopt;
  Uevent event;
  event.action = head.substr(0, at);
  event.device_path = head.substr(at + 1);
  message.remove_prefix(head_end + 1);
  while (!message.empty()) {
    const size_t end = std::min(message.find('\0'), message.size());
    const std::string_view entry = message.substr(0, end);
    message.remove_prefix(std::min(end + 1, message.size()));
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos || equals == 0) continue;
    event.values[std::string(entry.substr(0, equals))] = entry.substr(equals + 1);
  }
  event.subsystem = Value(event, "SUBSYSTEM");
  return event;
}

std::optional<UeventVerdict> JudgeUevent(const Uevent& event, const DiskNames& names,
                                         absl::Time now) {
  const std::string name = event.name();
  const std::optional<std::string> disk = names.DiskOf(name);
  if (!disk) return std::nullopt;
  if (event.subsystem == "nvme") return JudgeController(event, *disk, now);
  // A partition or a volume that is taken away does not take its disk with it.
  if (event.subsystem != "block" || name != *disk) return std::nullopt;
  return JudgeBlock(event, *disk, now);
}

absl::StatusOr<UeventSocket> UeventSocket::Open() {
  base::UniqueFd socket(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  if (!socket.valid()) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "unsupported: the kernel gives no device events: {}",
                       base::ErrnoStatus(errno, "make", "netlink socket").ToString());
  }
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kKernelGroup;
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return base::Error(absl::StatusCode::kUnimplemented,
                       "unsupported: the kernel gives no device events: {}",
                       base::ErrnoStatus(errno, "bind", "netlink socket").ToString());
  }
  return UeventSocket(std::move(socket));
}

std::vector<Uevent> UeventSocket::Drain(bool& lost) {
  std::vector<Uevent> events;
  lost = false;
  char buffer[kMaxMessage];
  while (true) {
    sockaddr_nl sender{};
    socklen_t size = sizeof sender;
    const ssize_t length = recvfrom(socket_.get(), buffer, sizeof buffer, 0,
                                    reinterpret_cast<sockaddr*>(&sender), &size);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0 && errno == ENOBUFS) {
      lost = true;
      continue;
    }
    if (length <= 0) return events;
    if (sender.nl_pid != 0) continue;  // not from the kernel
    if (auto event = ParseUevent({buffer, static_cast<size_t>(length)})) {
      events.push_back(*std::move(event));
    }
  }
}

}  // namespace metal::disk
