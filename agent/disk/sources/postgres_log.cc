#include "agent/disk/sources/postgres_log.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/disk/sources/text_pattern.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

using enum FaultClass;

constexpr absl::Duration kPanicHolds = absl::Seconds(30);
constexpr size_t kMostPanics = 64;
constexpr char kLineEvent[] = "disk.postgres_line";

struct Row {
  std::string_view pattern;
  FaultClass fault_class{};
  bool needs_error = true;  // says something of a disk only with one of kErrors at the end
};

// Fields: path, error. The first row that matches counts.
constexpr Row kRows[] = {
    // storage/file/fd.c, storage/smgr/md.c, access/transam/xlog.c
    {"could not fsync file \"{path}\": {error}", kFsyncError},
    {"could not fsync write-through file \"{path}\": {error}", kFsyncError},
    {"could not fdatasync file \"{path}\": {error}", kFsyncError},
    {"could not flush dirty data: {error}", kFsyncError},
    {"could not write to log file \"{path}\" at offset {*}: {error}", kWriteError},
    {"could not write to log file {path} at offset {*}: {error}", kWriteError},
    {"could not write block {*} in file \"{path}\": {error}", kWriteError},
    {"could not write blocks {*} in file \"{path}\": {error}", kWriteError},
    {"could not extend file \"{path}\" with FileFallocate(): {error}", kWriteError},
    {"could not extend file \"{path}\": {error}", kWriteError},
    {"could not write to file \"{path}\": {error}", kWriteError},
    {"could not write to file \"{path}\" at offset {*}: {error}", kWriteError},
    {"could not write file \"{path}\": {error}", kWriteError},
    {"could not create file \"{path}\": {error}", kWriteError},
    {"could not create directory \"{path}\": {error}", kWriteError},
    {"could not rename file \"{path}\" to \"{*}\": {error}", kWriteError},
    {"could not truncate file \"{path}\" to {*}: {error}", kWriteError},
    {"could not remove file \"{path}\": {error}", kWriteError},
    {"could not close file \"{path}\": {error}", kWriteError},
    {"could not read block {*} in file \"{path}\": read only {*} of {*} bytes", kCorruption, false},
    {"could not read blocks {*} in file \"{path}\": read only {*} of {*} bytes", kCorruption,
     false},
    {"could not read block {*} in file \"{path}\": {error}", kMediaError},
    {"could not read blocks {*} in file \"{path}\": {error}", kMediaError},
    {"could not read from WAL segment {path}, offset {*}: {error}", kMediaError},
    {"could not read from log segment {path}, offset {*}: {error}", kMediaError},
    {"could not read file \"{path}\": {error}", kMediaError},
    {"could not read from file \"{path}\", offset {*}: {error}", kMediaError},
    {"could not open file \"{path}\": {error}", kMediaError},
    {"could not stat file \"{path}\": {error}", kMediaError},
    {"could not seek to {*} in file \"{path}\": {error}", kMediaError},

    // storage/page/bufpage.c, storage/buffer/bufmgr.c
    {"invalid page in block {*} of relation {path}", kCorruption, false},
    {"invalid page in block {*} of relation \"{path}\"{*}", kCorruption, false},
    {"page verification failed, calculated checksum {*} but expected {*}", kCorruption, false},
    {"unexpected data beyond EOF in block {*} of relation {path}", kCorruption, false},

    // Whatever it was that failed, with an error that says enough.
    {"could not {*}\"{path}\"{*}: {error}", kMediaError},
    {"could not {*}: {error}", kMediaError},
};

struct Error {
  std::string_view text;  // as strerror has it
  int number = 0;
  std::optional<FaultClass> fault_class;  // nullopt: what failed tells
};
constexpr Error kErrors[] = {
    {"Input/output error", EIO, std::nullopt},
    {"No data available", ENODATA, std::nullopt},  // a medium error of NVMe
    {"Invalid or incomplete multibyte or wide character", EILSEQ, kCorruption},
    {"Remote I/O error", EREMOTEIO, std::nullopt},
    {"No space left on device", ENOSPC, kFull},
    {"Disk quota exceeded", EDQUOT, kFull},
    {"Read-only file system", EROFS, kFilesystemShutdown},
    {"Structure needs cleaning", EUCLEAN, kCorruption},
    {"Bad message", EBADMSG, kCorruption},
    {"No such device", ENODEV, kGone},
    {"No such device or address", ENXIO, kGone},
};

const Error* FindError(std::string_view text) {
  const auto* const found = std::find_if(std::begin(kErrors), std::end(kErrors),
                                         [&](const Error& each) { return each.text == text; });
  return found == std::end(kErrors) ? nullptr : found;
}

std::string_view Field(const TextFields& fields, std::string_view name) {
  const auto found = fields.find(name);
  return found == fields.end() ? std::string_view() : found->second;
}

// The pid in "… [123] …", the last one before the level.
int PidIn(std::string_view prefix) {
  const size_t close = prefix.rfind(']');
  const size_t open = close == std::string_view::npos ? close : prefix.rfind('[', close);
  if (open == std::string_view::npos) return 0;
  const auto pid = ParseTextNumber(prefix.substr(open + 1, close - open - 1));
  return pid && *pid > 0 && *pid <= INT32_MAX ? static_cast<int>(*pid) : 0;
}

bool FencesAlone(FaultClass fault_class) {
  return fault_class == kFsyncError || fault_class == kWriteError || fault_class == kGone;
}

}  // namespace

std::optional<PostgresLine> SplitPostgresLine(std::string_view line) {
  constexpr std::string_view kLevels[] = {
      "PANIC:  ", "FATAL:  ",     "ERROR:  ",  "LOG:  ",      "WARNING:  ", "NOTICE:  ",
      "INFO:  ",  "STATEMENT:  ", "DETAIL:  ", "HINT:  ",     "CONTEXT:  ", "QUERY:  ",
      "DEBUG:  ", "LOCATION:  ",  "DEBUG1:  ", "BACKTRACE:  "};
  constexpr size_t kOfMessages = 5;  // those up to here begin a message
  // The first one in the line: messages and statements may quote others.
  size_t first = std::string_view::npos;
  std::string_view level;
  for (const std::string_view each : kLevels) {
    const size_t at = line.find(each);
    if (at >= first) continue;
    first = at;
    level = each;
  }
  const auto* const own = std::find(std::begin(kLevels), std::begin(kLevels) + kOfMessages, level);
  if (own == std::begin(kLevels) + kOfMessages) return std::nullopt;
  return PostgresLine{.level = level.substr(0, level.find(':')),
                      .message = line.substr(first + level.size()),
                      .pid = PidIn(line.substr(0, first))};
}

std::optional<PostgresFinding> ClassifyPostgresMessage(std::string_view message) {
  // Memory and kernel tables that are full, not disks.
  for (const std::string_view other : {"shared memory", "semaphore"}) {
    if (message.find(other) != std::string_view::npos) return std::nullopt;
  }
  for (const Row& row : kRows) {
    const auto fields = MatchText(row.pattern, message);
    if (!fields) continue;
    PostgresFinding finding;
    finding.fault_class = row.fault_class;
    finding.path = Field(*fields, "path");
    // The server names its own files from its data directory on; others are those of COPY, of
    // foreign tables and of programs, on whatever disk.
    if (finding.path.starts_with('/')) return std::nullopt;
    if (!row.needs_error) return finding;
    const Error* const error = FindError(Field(*fields, "error"));
    if (error == nullptr) return std::nullopt;  // a missing file, a permission: not the disk's
    finding.error_number = error->number;
    finding.fault_class = error->fault_class.value_or(row.fault_class);
    return finding;
  }
  return std::nullopt;
}

std::string RoleOfPath(std::string_view path) {
  constexpr std::string_view kTablespaces = "pg_tblspc/";
  const size_t tablespace = path.find(kTablespaces);
  if (tablespace != std::string_view::npos) {
    const std::string_view rest = path.substr(tablespace + kTablespaces.size());
    const std::string_view oid = rest.substr(0, rest.find('/'));
    if (ParseTextNumber(oid).value_or(0) > 0) return fmt::format("tablespace:{}", oid);
  }
  // A WAL file's name may come without its directory.
  const std::string_view name = path.substr(path.rfind('/') + 1);
  const bool segment = name.size() >= 24 && name.find_first_not_of("0123456789ABCDEF") >= 24;
  return segment || path.find("pg_wal") != std::string_view::npos ? "wal" : "data";
}

void PostgresLogJudge::OnLine(std::string_view line, const std::set<std::string>& roles,
                              KernelLogJudge::Now now, Findings& out) {
  const auto parsed = SplitPostgresLine(line);
  if (!parsed) return;
  if (parsed->level == "LOG") OnProcessEnd(parsed->message, now, out);
  const auto finding = ClassifyPostgresMessage(parsed->message);
  if (!finding) return;
  Evidence evidence;
  evidence.fault_class = finding->fault_class;
  evidence.witness = Witness::kPostgresLog;
  evidence.role = RoleOfPath(finding->path);
  if (!roles.contains(evidence.role)) evidence.role = "data";
  evidence.text = fmt::format("PostgreSQL: {}: {}", parsed->level, parsed->message);
  evidence.error_number = finding->error_number;
  evidence.time = now.time;
  Tell(line, evidence, now, out);
  if (!FencesAlone(evidence.fault_class)) {
    evidence.hearsay = true;
    out.evidence.push_back(std::move(evidence));
  } else if (parsed->level == "PANIC" && parsed->pid > 0 && panics_.size() < kMostPanics) {
    panics_[parsed->pid] = {.evidence = std::move(evidence), .seen = now.monotonic};
  }
}

// "server process (PID 123) was terminated by signal 6: Aborted", of any kind of process.
void PostgresLogJudge::OnProcessEnd(std::string_view message, KernelLogJudge::Now now,
                                    Findings& out) {
  std::erase_if(panics_,
                [&](const auto& entry) { return now.monotonic - entry.second.seen > kPanicHolds; });
  const auto fields = MatchText("{*} (PID {pid}) was terminated by signal 6{*}", message);
  if (!fields) return;
  const auto panic = panics_.find(
      static_cast<int>(ParseTextNumber(Field(*fields, "pid")).value_or(0) & INT32_MAX));
  if (panic == panics_.end()) return;
  out.evidence.push_back(std::move(panic->second.evidence));
  panics_.erase(panic);
}

void PostgresLogJudge::Tell(std::string_view line, const Evidence& evidence,
                            KernelLogJudge::Now now, Findings& out) {
  const std::string class_name(FaultClassName(evidence.fault_class));
  if (!limiter_.Admit(class_name, now.monotonic)) return;
  observe::Event event;
  event.time = absl::InfinitePast();
  event.type = kLineEvent;
  event.severity = observe::Severity::kError;
  event.subject = "postgres";
  event.message = fmt::format("PostgreSQL's log: {}", line);
  event.attributes = {{"class", class_name}, {"role", evidence.role}};
  out.events.push_back(std::move(event));
}

void PostgresLogJudge::Tick(KernelLogJudge::Now now, Findings& out) {
  for (const auto& [class_name, left_out] : limiter_.Ended(now.monotonic)) {
    observe::Event event;
    event.time = absl::InfinitePast();
    event.type = kLineEvent;
    event.severity = observe::Severity::kWarning;
    event.subject = "postgres";
    event.message = fmt::format(
        "{} more lines of PostgreSQL's log about a disk (class {}) within a minute were left out",
        left_out, class_name);
    event.attributes = {{"class", class_name}, {"left_out", std::to_string(left_out)}};
    out.events.push_back(std::move(event));
  }
}

std::optional<Evidence> ChecksumJudge::Observe(int64_t failures, absl::Time now) {
  const std::optional<int64_t> last = std::exchange(last_, failures);
  if (!last || failures <= *last) return std::nullopt;
  Evidence evidence;
  evidence.fault_class = kCorruption;
  evidence.witness = Witness::kChecksums;
  evidence.role = "data";
  evidence.delta = failures - *last;
  evidence.text =
      fmt::format("PostgreSQL found {} more pages with a wrong checksum", *evidence.delta);
  evidence.time = now;
  return evidence;
}

}  // namespace metal::disk
