#include "agent/pg/rewind.h"

#include <charconv>
#include <vector>

#include "agent/base/status.h"
#include "agent/base/subprocess.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kDryRun = absl::Minutes(10);
constexpr size_t kSegmentName = 24;

constexpr const char* kSourceQuery =
    "SELECT pg_is_in_recovery() AS in_recovery,"
    " (SELECT system_identifier FROM pg_control_system()) AS system_identifier,"
    " (SELECT timeline_id FROM pg_control_checkpoint()) AS control_timeline,"
    " CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END AS current,"
    " CASE WHEN pg_is_in_recovery() THEN NULL"
    "  ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END AS timeline,"
    " current_setting('full_page_writes') = 'on' AS full_page_writes,"
    " EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND slot_type = 'physical')"
    "  AS slot_exists";

// The text between `before` and `after`; empty when they are not there.
std::string_view Between(std::string_view text, std::string_view before, std::string_view after) {
  const size_t start = text.find(before);
  if (start == std::string_view::npos) return {};
  text.remove_prefix(start + before.size());
  return text.substr(0, text.find(after));
}

uint64_t NumberIn(std::string_view text, int base = 10) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  uint64_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number, base);
  return number;
}

// "… at WAL location 0/3000000 on timeline 1"
void ReadPlace(std::string_view line, std::string_view before, base::TimelineId& timeline,
               base::Lsn& lsn) {
  lsn = base::Lsn::Parse(Between(line, before, " ")).value_or(base::Lsn());
  timeline = static_cast<base::TimelineId>(NumberIn(Between(line, " on timeline ", " ")));
}

// What pg_rewind gives as the cause: its lines "error:" and "fatal:" with the details that follow.
std::string CauseIn(const std::string& output) {
  std::string cause;
  bool taking = false;
  for (size_t start = 0; start < output.size();) {
    const size_t end = std::min(output.find('\n', start), output.size());
    std::string_view line = std::string_view(output).substr(start, end - start);
    start = end + 1;
    const size_t level = line.find("pg_rewind: ");
    if (level == 0) {
      line.remove_prefix(11);
      taking = line.starts_with("error: ") || line.starts_with("fatal: ") ||
               (taking && (line.starts_with("detail: ") || line.starts_with("hint: ")));
      if (line.starts_with("error: ") || line.starts_with("fatal: ")) line.remove_prefix(7);
    }
    if (!taking || line.empty()) continue;
    if (!cause.empty()) cause += "; ";
    cause += line;
  }
  return cause;
}

// The target's WAL segment that could not be opened; empty when that was not it.
std::string MissingSegment(std::string_view cause, const std::string& data_dir) {
  const std::string_view path = Between(cause, "could not open file \"", "\"");
  if (!path.starts_with(data_dir + "/pg_wal/")) return "";
  const std::string_view name = path.substr(path.rfind('/') + 1);
  if (name.size() != kSegmentName || cause.find("No such file") == std::string_view::npos) {
    return "";
  }
  return std::string(name);
}

absl::Status Failure(const PgRewindOptions& options, const base::SubprocessResult& result) {
  std::string cause = CauseIn(result.standard_error);
  if (cause.empty()) cause = result.LastLine();
  if (cause.empty()) cause = fmt::format("it ended with exit code {}", result.exit_code);
  if (const std::string missing = MissingSegment(cause, options.data_dir); !missing.empty()) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition,
                    "pg_rewind: {}. HINT: WAL back to the last common checkpoint is needed; keep "
                    "more of it (wal_keep_size) or archive it",
                    cause),
        {"WAL_MISSING", {{"first_missing", missing}}});
  }
  for (const char* words : {"No space left on device", "Disk quota exceeded"}) {
    if (cause.find(words) == std::string::npos) continue;
    return base::WithReason(
        base::Error(absl::StatusCode::kResourceExhausted,
                    "pg_rewind: {}. HINT: free space on the disk of {}", cause, options.data_dir),
        {"NO_SPACE", {{"path", options.data_dir}}});
  }
  for (const char* words : {"could not connect to server", "connection to server", "lost "}) {
    if (!cause.starts_with(words)) continue;
    return base::Error(absl::StatusCode::kUnavailable, "pg_rewind: {}", cause);
  }
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition, "pg_rewind: {}", cause),
      {"REWIND_REFUSED", {}});
}

}  // namespace

std::string ReadRewindLine(std::string_view line, RewindReport& report) {
  if (line.find(" kB (") != std::string_view::npos && line.ends_with("copied")) {
    report.to_copy = {NumberIn(Between(line, "/", " ")) * base::kKiB};
    return "";
  }
  if (!line.starts_with("pg_rewind: ")) return "";
  line.remove_prefix(11);
  if (line.starts_with("servers diverged at ")) {
    ReadPlace(line, "WAL location ", report.diverged_timeline, report.diverged_at);
  } else if (line.starts_with("rewinding from last common checkpoint at ")) {
    ReadPlace(line, "checkpoint at ", report.checkpoint_timeline, report.checkpoint);
  } else if (line.starts_with("no rewind required")) {
    report.required = false;
  } else if (line.starts_with("need to copy ")) {
    // The last words before the target is changed.
    report.began = true;
    report.to_copy = {NumberIn(line.substr(13)) * base::kMiB};
    return "copying";
  } else if (line.starts_with("Done!")) {
    report.finished = true;
  } else if (line.starts_with("reading ") || line.starts_with("creating ") ||
             line.starts_with("syncing ")) {
    return std::string(line);
  }
  return "";
}

absl::Status RunPgRewind(const PgRewindOptions& options, RewindReport& report) {
  report = {};
  base::SubprocessOptions run;
  run.argv = {
      options.program, "--target-pgdata=" + options.data_dir, "--source-server=" + options.conninfo,
      "--progress",
      // A target that is not cleanly shut down is recovered before, where it can be watched.
      "--no-ensure-shutdown"};
  if (options.dry_run) run.argv.push_back("--dry-run");
  run.timeout = options.dry_run ? kDryRun : absl::InfiniteDuration();
  if (options.dry_run) run.cancelled = options.cancelled;
  run.on_stderr_line = [&](std::string_view line) {
    const std::string step = ReadRewindLine(line, report);
    if (!step.empty() && options.on_step) options.on_step(step);
    if (!options.on_progress || !line.ends_with("copied")) return;
    options.on_progress({NumberIn(line) * base::kKiB}, report.to_copy);
  };
  const absl::StatusOr<base::SubprocessResult> result = base::RunSubprocess(run);
  if (options.dry_run) report.began = false;
  if (!result.ok()) return base::Annotate(result.status(), "pg_rewind");
  return result->ok() ? absl::OkStatus() : Failure(options, *result);
}

absl::Status CheckRewindTarget(const ControlFile& target) {
  std::string missing, hint;
  const auto need = [&](std::string_view what, std::string_view how) {
    missing += fmt::format("{}{}", missing.empty() ? "" : "; ", what);
    hint += fmt::format("{}{}", hint.empty() ? "" : "; ", how);
  };
  if (!target.wal_log_hints && target.checksum_version == 0) {
    need("the data directory has neither page checksums nor was wal_log_hints on",
         "set wal_log_hints = on for the next time and make this node anew");
  }
  if (!target.full_page_writes) {
    need("full_page_writes was off", "set full_page_writes = on");
  }
  if (missing.empty()) return absl::OkStatus();
  return base::WithReason(base::Error(absl::StatusCode::kFailedPrecondition,
                                      "the node cannot be rewound: {}. HINT: {}", missing, hint),
                          {"REWIND_REFUSED", {}});
}

absl::StatusOr<RewindSource> QueryRewindSource(SqlSession& session, const std::string& slot,
                                               absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const SqlResult row,
                         session.Query(kSourceQuery, {slot}, {timeout, nullptr}));
  if (row.rows.size() != 1) {
    return absl::DataLossError("the source's answer about itself has no row");
  }
  RewindSource source;
  source.version_num = session.server_version();
  source.in_recovery = row.Bool(0, "in_recovery");
  source.system_identifier = static_cast<uint64_t>(row.Int(0, "system_identifier").value_or(0));
  source.timeline = static_cast<base::TimelineId>(NumberIn(row.Text(0, "timeline"), 16));
  source.control_timeline =
      static_cast<base::TimelineId>(row.Int(0, "control_timeline").value_or(0));
  source.current = row.LsnAt(0, "current");
  source.full_page_writes = row.Bool(0, "full_page_writes");
  source.slot_exists = row.Bool(0, "slot_exists");
  return source;
}

absl::StatusOr<bool> SourceHasWal(SqlSession& session, const std::string& name,
                                  absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(
      const SqlResult row,
      session.Query("SELECT (pg_stat_file('pg_wal/' || $1, true)).size IS NOT NULL AS there",
                    {name}, {timeout, nullptr}));
  return row.Bool(0, "there");
}

absl::StatusOr<base::Lsn> OldestWalOfSource(SqlSession& session, uint64_t segment_size,
                                            absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(
      const SqlResult row,
      session.Query("SELECT '00000001' || min(substr(name, 9)) AS oldest "
                    "FROM pg_ls_dir('pg_wal', true, false) AS name WHERE name ~ '^[0-9A-F]{24}$'",
                    timeout));
  const auto segment = base::ParseWalFileName(row.Text(0, "oldest"), segment_size);
  return segment ? segment->start : base::Lsn();
}

absl::Status CheckRewindSource(const RewindSource& source, const ControlFile& target, int major) {
  const auto refuse = [](std::string differs, const std::string& words) {
    return base::WithReason(
        base::Error(absl::StatusCode::kFailedPrecondition, "the source {}", words),
        {"REWIND_SOURCE", {{"differs", std::move(differs)}}});
  };
  if (source.system_identifier != target.system_identifier) {
    return refuse("system_identifier",
                  fmt::format("is of another cluster: its system identifier is {}, this node's {}. "
                              "HINT: check host and port",
                              source.system_identifier, target.system_identifier));
  }
  if (source.version_num / 10000 != major) {
    return refuse("version", fmt::format("is PostgreSQL {}, this node {}. HINT: both need the same "
                                         "major version",
                                         source.version_num / 10000, major));
  }
  if (source.in_recovery) {
    return refuse("role", "is a standby. HINT: name the primary, or promote that node first");
  }
  if (!source.full_page_writes) {
    return refuse(
        "full_page_writes",
        "runs with full_page_writes off, so what is copied from it may be torn. HINT: set "
        "full_page_writes = on there");
  }
  return absl::OkStatus();
}

}  // namespace metal::pg
