#include "agent/disk/sources/filesystem.h"

#include <linux/fanotify.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/disk/sources/text_pattern.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr std::array<std::string_view, 4> kErrorKinds = {"EIO", "ENOSPC", "ENODEV", "default"};
// Retries after errors of the device; running out of space passes, a device that went never comes.
constexpr std::array<std::string_view, 2> kDeviceErrors = {"EIO", "default"};

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool Has(std::string_view options, std::string_view option) {
  const auto parts = Split(options, ',');
  return std::find(parts.begin(), parts.end(), option) != parts.end();
}

std::optional<int64_t> NumberIn(const std::string& path) {
  const auto text = base::ReadFile(path, 64);
  if (!text.ok()) return std::nullopt;
  return ParseTextNumber(std::string_view(*text).substr(0, text->find('\n')));
}

Evidence MakeEvidence(FaultClass fault_class, const FilesystemId& id, std::string text,
                      absl::Time time) {
  Evidence evidence;
  evidence.fault_class = fault_class;
  evidence.witness = Witness::kFilesystem;
  evidence.device = id.disk;
  evidence.text = std::move(text);
  evidence.time = time;
  return evidence;
}

}  // namespace

std::optional<FilesystemId> FilesystemOf(const StorageStack& stack) {
  if (stack.mount.major == 0 || stack.layers.empty()) return std::nullopt;
  FilesystemId id;
  id.major = stack.mount.major;
  id.minor = stack.mount.minor;
  id.mount_id = stack.mount.id;
  id.name = stack.layers.front();
  id.type = stack.mount.filesystem;
  id.disk = stack.disks.size() == 1 ? stack.disks.front().name : stack.layers.front();
  return id;
}

std::optional<MountState> FindMountState(std::string_view mountinfo, unsigned major,
                                         unsigned minor) {
  // "36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/root rw,emergency_ro"
  constexpr size_t kNumber = 2, kOptions = 5;
  const std::string number = fmt::format("{}:{}", major, minor);
  std::optional<MountState> state;
  for (const std::string_view line : Split(mountinfo, '\n')) {
    const auto fields = Split(line, ' ');
    if (fields.size() <= kOptions || fields[kNumber] != number) continue;
    const auto separator = std::find(fields.begin(), fields.end(), "-");
    if (fields.end() - separator < 4) continue;
    const std::string_view of_mount = fields[kOptions], of_filesystem = separator[3];
    state = MountState{};
    state->read_only = Has(of_mount, "ro") || Has(of_filesystem, "ro");
    for (const std::string_view mark : {"emergency_ro", "shutdown"}) {
      if (!Has(of_filesystem, mark)) continue;
      state->broken = true;
      state->mark = mark;
    }
  }
  return state;
}

std::map<std::string, XfsRetry> ReadXfsRetries(const SysRoots& roots, const std::string& name) {
  std::map<std::string, XfsRetry> retries;
  for (const std::string_view kind : kErrorKinds) {
    const std::string directory =
        fmt::format("{}/fs/xfs/{}/error/metadata/{}", roots.sys, name, kind);
    const auto most = NumberIn(directory + "/max_retries");
    const auto timeout = NumberIn(directory + "/retry_timeout_seconds");
    if (!most || !timeout) continue;
    retries[std::string(kind)] = {.max_retries = *most, .timeout_seconds = *timeout};
  }
  return retries;
}

void FilesystemJudge::Last(bool holds, bool& held, FaultClass fault_class, std::string text,
                           absl::Time time, std::vector<Evidence>& out) const {
  const bool ended = std::exchange(held, holds) && !holds;
  if (!holds && !ended) return;
  if (ended) text = fmt::format("{} on {} no longer says so", id_.type, id_.name);
  out.push_back(MakeEvidence(fault_class, id_, std::move(text), time));
  out.back().clears = ended;
}

std::vector<Evidence> FilesystemJudge::Observe(const std::optional<MountState>& mount,
                                               const std::map<std::string, XfsRetry>& retries,
                                               absl::Time time) {
  std::vector<Evidence> out;
  if (mount) {
    if (!mount->read_only) was_writable_ = true;
    Last(mount->broken, broken_, FaultClass::kFilesystemShutdown,
         fmt::format("{} on {} gave up: it is mounted as \"{}\"", id_.type, id_.name, mount->mark),
         time, out);
    Last(mount->read_only && was_writable_, read_only_, FaultClass::kFilesystemShutdown,
         fmt::format("{} on {} became read-only", id_.type, id_.name), time, out);
  }
  std::string endless;
  for (const std::string_view kind : kDeviceErrors) {
    const auto found = retries.find(std::string(kind));
    if (found == retries.end() || found->second.max_retries >= 0 ||
        found->second.timeout_seconds > 0) {
      continue;
    }
    endless += fmt::format("{}{}", endless.empty() ? "" : ", ", kind);
  }
  Last(!endless.empty(), retries_, FaultClass::kMetadataRetry,
       fmt::format("XFS on {} retries failed metadata writes for ever ({})", id_.name, endless),
       time, out);
  return out;
}

std::vector<Evidence> FilesystemJudge::Withdraw(absl::Time time) {
  std::vector<Evidence> out;
  Last(false, broken_, FaultClass::kFilesystemShutdown, "", time, out);
  Last(false, read_only_, FaultClass::kFilesystemShutdown, "", time, out);
  Last(false, retries_, FaultClass::kMetadataRetry, "", time, out);
  return out;
}

std::vector<FilesystemError> ParseFilesystemErrors(std::span<const std::byte> bytes) {
  std::vector<FilesystemError> errors;
  while (bytes.size() >= sizeof(fanotify_event_metadata)) {
    fanotify_event_metadata event;
    std::memcpy(&event, bytes.data(), sizeof event);
    if (event.event_len < event.metadata_len || event.event_len > bytes.size() ||
        event.metadata_len < sizeof event) {
      return errors;
    }
    auto records = bytes.subspan(event.metadata_len, event.event_len - event.metadata_len);
    bytes = bytes.subspan(event.event_len);
    while ((event.mask & FAN_FS_ERROR) != 0 &&
           records.size() >= sizeof(fanotify_event_info_header)) {
      fanotify_event_info_header header;
      std::memcpy(&header, records.data(), sizeof header);
      if (header.len < sizeof header || header.len > records.size()) break;
      if (header.info_type == FAN_EVENT_INFO_TYPE_ERROR &&
          header.len >= sizeof(fanotify_event_info_error)) {
        fanotify_event_info_error error;
        std::memcpy(&error, records.data(), sizeof error);
        errors.push_back({.error_number = error.error, .count = error.error_count});
      }
      records = records.subspan(header.len);
    }
  }
  return errors;
}

Evidence JudgeFilesystemError(const FilesystemError& error, const FilesystemId& id,
                              absl::Time time) {
  // EUCLEAN and EBADMSG are what file systems have for "corrupted" and "wrong checksum".
  const bool corrupt = error.error_number == EUCLEAN || error.error_number == EBADMSG;
  Evidence evidence = MakeEvidence(
      corrupt ? FaultClass::kCorruption : FaultClass::kFilesystemShutdown, id,
      fmt::format("{} on {} reports an error: {}", id.type, id.name, strerror(error.error_number)),
      time);
  evidence.error_number = error.error_number;
  evidence.delta = error.count;  // something that happened: nobody tells of its end
  return evidence;
}

}  // namespace metal::disk
