#include "agent/disk/sources/kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr size_t kMaxRecord = 8192;  // the kernel's CONSOLE_EXT_LOG_MAX
constexpr absl::Duration kCauseHolds = absl::Seconds(5);
// A command is aborted after its timeout (30 s), the controller reset after another one.
constexpr absl::Duration kOneReset = absl::Minutes(1);
constexpr int kFailuresInARow = 1000;
constexpr char kLineEvent[] = "disk.kernel_line";

// Drives that drop out fail reads as well; what a failed write means does not depend on why.
bool ExplainsReads(FaultClass fault_class) {
  return fault_class == FaultClass::kControllerReset || fault_class == FaultClass::kGone ||
         fault_class == FaultClass::kCorruption;
}

observe::Severity SeverityOf(std::optional<FaultClass> fault_class) {
  if (!fault_class) return observe::Severity::kInfo;
  switch (*fault_class) {
    case FaultClass::kGone:
    case FaultClass::kWriteError:
    case FaultClass::kFsyncError:
    case FaultClass::kFilesystemShutdown:
    case FaultClass::kMediaError:
    case FaultClass::kCorruption:
      return observe::Severity::kError;
    default:
      return observe::Severity::kWarning;
  }
}

std::string ClassName(std::optional<FaultClass> fault_class) {
  return fault_class ? std::string(FaultClassName(*fault_class)) : "none";
}

observe::Event MakeEvent(std::string type, observe::Severity severity, std::string subject,
                         std::string message) {
  observe::Event event;
  event.time = absl::InfinitePast();
  event.type = std::move(type);
  event.severity = severity;
  event.subject = std::move(subject);
  event.message = std::move(message);
  return event;
}

}  // namespace

void KernelLogJudge::OnRecord(const base::KernelRecord& record, const DiskNames& names, Now now,
                              Findings& out) {
  if (record.continues && !last_matched_) {
    last_line_ += record.text;
    if (last_line_.size() > kMaxRecord) last_line_.clear();
    last_matched_ = OnLine(last_line_, record, names, now, out);
    return;
  }
  last_matched_ = false;
  for (size_t begin = 0; begin <= record.text.size();) {
    const size_t end = std::min(record.text.find('\n', begin), record.text.size());
    last_line_ = record.text.substr(begin, end - begin);
    if (OnLine(last_line_, record, names, now, out)) last_matched_ = true;
    begin = end + 1;
  }
}

bool KernelLogJudge::OnLine(std::string_view line, const base::KernelRecord& record,
                            const DiskNames& names, Now now, Findings& out) {
  std::optional<KernelFinding> finding = ClassifyKernelLine(line);
  if (!finding) return false;
  std::optional<std::string> disk = names.DiskOf(finding->name);
  const auto device = record.dictionary.find("DEVICE");
  if (!disk && device != record.dictionary.end()) disk = names.DiskOf(device->second);
  if (!disk) return true;

  if (finding->logical_block) finding->sector = names.SectorOf(*disk, *finding->logical_block);
  // Of a partition or a volume it would need an offset to be one of the disk.
  if (finding->name != *disk && !finding->logical_block) finding->sector.reset();
  Explain(*disk, *finding, now.monotonic);

  Evidence evidence;
  evidence.fault_class = finding->fault_class.value_or(FaultClass::kMediaError);
  evidence.witness = Witness::kKernelLog;
  evidence.device = *disk;
  evidence.text = finding->name == *disk
                      ? fmt::format("{}: {}", *disk, finding->what)
                      : fmt::format("{} ({}): {}", *disk, finding->name, finding->what);
  evidence.error_number = finding->error_number;
  evidence.nvme_status = finding->nvme_status;
  evidence.sector = finding->sector;
  evidence.kernel_line = std::string(line);
  evidence.time = now.time;
  Tell(evidence, *finding, now, out);
  if (finding->fault_class && !IsOfTheSameReset(evidence, now.monotonic)) {
    out.evidence.push_back(std::move(evidence));
  }
  return true;
}

bool KernelLogJudge::IsOfTheSameReset(const Evidence& evidence, base::MonotonicTime now) {
  if (evidence.fault_class != FaultClass::kControllerReset) return false;
  const auto [last, first] = resets_.try_emplace(evidence.device, now);
  if (first) return false;
  if (now - last->second < kOneReset) return true;
  last->second = now;
  return false;
}

void KernelLogJudge::Explain(const std::string& disk, KernelFinding& finding,
                             base::MonotonicTime now) {
  const auto cause = causes_.find(disk);
  if (finding.generic && cause != causes_.end() && now - cause->second.seen <= kCauseHolds) {
    const bool same_place = finding.sector && cause->second.sector == finding.sector;
    if (same_place && !finding.nvme_status) finding.nvme_status = cause->second.nvme_status;
    if (finding.fault_class == FaultClass::kMediaError &&
        ExplainsReads(cause->second.fault_class)) {
      finding.fault_class = cause->second.fault_class;
    }
    return;
  }
  if (!finding.fault_class || finding.generic) return;
  causes_[disk] = {.fault_class = *finding.fault_class,
                   .nvme_status = finding.nvme_status,
                   .sector = finding.sector,
                   .seen = now};
}

void KernelLogJudge::Tell(const Evidence& evidence, const KernelFinding& finding, Now now,
                          Findings& out) {
  const std::string class_name = ClassName(finding.fault_class);
  if (!limiter_.Admit(evidence.device + ' ' + class_name, now.monotonic)) {
    KernelLine line{evidence.device, class_name, evidence.kernel_line};
    if (untold_.IsNew(line, now.monotonic)) out.lines.push_back(std::move(line));
    return;
  }
  observe::Event event = MakeEvent(kLineEvent, SeverityOf(finding.fault_class), evidence.device,
                                   "kernel: " + evidence.kernel_line);
  event.attributes["class"] = class_name;
  event.attributes["name"] = finding.name;
  if (evidence.sector) event.attributes["sector"] = std::to_string(*evidence.sector);
  if (evidence.nvme_status) {
    event.attributes["nvme_status"] =
        fmt::format("{:x}/{:02x}h", evidence.nvme_status->type, evidence.nvme_status->code);
  }
  out.events.push_back(std::move(event));
}

std::optional<base::MonotonicTime> KernelLogJudge::NextTick() const {
  const auto events = limiter_.NextEnd(), lines = untold_.NextEnd();
  return events && lines ? std::min(*events, *lines) : events ? events : lines;
}

void KernelLogJudge::Tick(Now now, Findings& out) {
  for (KernelLine& line : untold_.Ended(now.monotonic)) out.lines.push_back(std::move(line));
  for (const auto& [key, left_out] : limiter_.Ended(now.monotonic)) {
    const size_t space = key.find(' ');
    const std::string disk = key.substr(0, space);
    const std::string class_name = key.substr(space + 1);
    observe::Event event = MakeEvent(
        kLineEvent, observe::Severity::kWarning, disk,
        fmt::format("{} more lines of the kernel's log about {} (class {}) within a minute were "
                    "left out",
                    left_out, disk, class_name));
    event.attributes["class"] = class_name;
    event.attributes["left_out"] = std::to_string(left_out);
    out.events.push_back(std::move(event));
  }
}

KernelLog::KernelLog(base::UniqueFd device, ReadRecord read)
    : device_(std::move(device)), read_(std::move(read)) {
  if (!read_) {
    read_ = [](int fd, std::span<char> buffer) { return ::read(fd, buffer.data(), buffer.size()); };
  }
}

bool KernelLog::Drain(const DiskNames& names, base::Clock& clock, Findings& out) {
  char buffer[kMaxRecord];
  for (int failures = 0; failures < kFailuresInARow;) {
    const ssize_t length = read_(device_.get(), buffer);
    if (length > 0) {
      OnText({buffer, static_cast<size_t>(length)}, names, clock, out);
      failures = 0;
      continue;
    }
    if (length == 0) return false;
    ++failures;
    // EPIPE: records were overwritten before they were read; the sequence tells how many. EINVAL:
    // this one is longer than the buffer, and skipped.
    if (errno == EINTR || errno == EPIPE || errno == EINVAL) continue;
    return errno == EAGAIN;
  }
  return false;
}

void KernelLog::OnText(std::string_view text, const DiskNames& names, base::Clock& clock,
                       Findings& out) {
  const std::optional<base::KernelRecord> record = base::ParseKernelRecord(text);
  if (!record) return;
  if (last_sequence_ && record->sequence > *last_sequence_ + 1) {
    const uint64_t lost = record->sequence - *last_sequence_ - 1;
    observe::Event event = MakeEvent(
        "disk.kernel_lines_lost", observe::Severity::kWarning, "kernel",
        fmt::format("{} records of the kernel's log were overwritten before they were read", lost));
    event.attributes["lost"] = std::to_string(lost);
    out.events.push_back(std::move(event));
  }
  last_sequence_ = record->sequence;
  if (record->facility != 0 && !trust_all_) return;
  judge_.OnRecord(*record, names, {.time = clock.Now(), .monotonic = clock.Monotonic()}, out);
}

absl::StatusOr<base::UniqueFd> OpenKernelLog(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd device,
                         base::OpenFile(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  if (lseek(device.get(), 0, SEEK_END) < 0) return base::ErrnoStatus(errno, "seek in", path);
  return device;
}

}  // namespace metal::disk
