#include "agent/disk/disk_record.h"

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::disk {
namespace {

constexpr size_t kLargest = 1 << 20;
constexpr size_t kDriveFields = 8, kAcknowledgedFields = 10;

using Fields = std::vector<std::string>;

std::string Line(const Fields& fields) {
  std::string line;
  for (const std::string& field : fields) {
    line += (line.empty() ? "" : "\t") + absl::CEscape(field);
  }
  return line + "\n";
}

bool TakeDrive(const Fields& fields, DiskRecord& record) {
  DriveIdentity drive{
      .model = fields[3], .serial = fields[4], .wwid = fields[5], .firmware = fields[6]};
  if (!absl::SimpleAtoi(fields[7], &drive.size_bytes)) return false;
  NotedDrives& noted = record.drives[fields[1]];
  noted.directory = fields[2];
  noted.drives.push_back(std::move(drive));
  return true;
}

bool TakeAcknowledged(const Fields& fields, DiskRecord& record) {
  int64_t milliseconds = 0;
  if (!absl::SimpleAtoi(fields[9], &milliseconds)) return false;
  record.acknowledged.push_back({.fault_class = fields[1],
                                 .subject = fields[2],
                                 .device = fields[3],
                                 .serial = fields[4],
                                 .confirmed = fields[5] == "confirmed",
                                 .witnesses = absl::StrSplit(fields[6], ',', absl::SkipEmpty()),
                                 .caller = fields[7],
                                 .reason = fields[8],
                                 .time = absl::FromUnixMillis(milliseconds)});
  return true;
}

bool TakeLine(std::string_view line, DiskRecord& record) {
  Fields fields;
  const Fields escaped = absl::StrSplit(std::string(line), '\t');
  for (const std::string& each : escaped) {
    if (!absl::CUnescape(each, &fields.emplace_back())) return false;
  }
  if (fields[0] == "drive" && fields.size() == kDriveFields) return TakeDrive(fields, record);
  const bool acknowledged = fields[0] == "acknowledged" && fields.size() == kAcknowledgedFields;
  return acknowledged && TakeAcknowledged(fields, record);
}

absl::StatusOr<DiskRecord> ReadRecord(const std::string& path) {
  const auto text = base::ReadFile(path, kLargest);
  if (absl::IsNotFound(text.status())) return DiskRecord();
  if (!text.ok()) return text.status();
  return DecodeRecord(*text);
}

}  // namespace

std::string EncodeRecord(const DiskRecord& record) {
  std::string text;
  for (const auto& [role, noted] : record.drives) {
    for (const DriveIdentity& drive : noted.drives) {
      text += Line({"drive", role, noted.directory, drive.model, drive.serial, drive.wwid,
                    drive.firmware, std::to_string(drive.size_bytes)});
    }
  }
  for (const Acknowledgement& each : record.acknowledged) {
    text += Line({"acknowledged", each.fault_class, each.subject, each.device, each.serial,
                  each.confirmed ? "confirmed" : "suspected", absl::StrJoin(each.witnesses, ","),
                  each.caller, each.reason, std::to_string(absl::ToUnixMillis(each.time))});
  }
  return text;
}

absl::StatusOr<DiskRecord> DecodeRecord(std::string_view text) {
  DiskRecord record;
  for (size_t begin = 0, number = 1; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (!TakeLine(text.substr(begin, end - begin), record)) {
      return base::Error(absl::StatusCode::kDataLoss, "line {} makes no sense", number);
    }
    begin = end + 1;
  }
  return record;
}

absl::StatusOr<DiskRecord> RecordFile::Load(absl::Duration patience) {
  if (path_.empty()) return DiskRecord();
  const auto read = calls_.Run<absl::StatusOr<DiskRecord>>(
      "disk-record", [path = path_] { return ReadRecord(path); }, patience);
  if (read) return *read;
  return base::Error(absl::StatusCode::kDeadlineExceeded, "read {}: its disk does not answer",
                     path_);
}

absl::Status RecordFile::Save(const DiskRecord& record, uint64_t version, absl::Duration patience) {
  if (path_.empty()) return absl::OkStatus();
  const auto write = [path = path_, written = written_, text = EncodeRecord(record), version] {
    const base::MutexLock lock(written->mutex);
    if (version <= written->version) return absl::OkStatus();
    absl::Status status = base::WriteFileDurably(path, text, 0600);
    if (status.ok()) written->version = version;
    return status;
  };
  const auto done = calls_.Run<absl::Status>("disk-record", write, patience);
  if (done) return *done;
  return base::Error(absl::StatusCode::kDeadlineExceeded, "write {}: its disk does not answer",
                     path_);
}

}  // namespace metal::disk
