#include "agent/node/rewind/rewind_record.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/text_map.h"
#include "agent/node/rewind/timeline_history.h"

namespace metal::node {
namespace {

constexpr uint64_t kLongestRecord = 4 * base::kMiB;  // some 100,000 timelines
constexpr RewindStage kStages[] = {RewindStage::kRunning, RewindStage::kRewound,
                                   RewindStage::kStarted};

std::string RecordPath(const std::string& state_dir) {
  return base::JoinPath(RewindDirectory(state_dir), "record");
}

template <typename Number>
bool ParseWhole(const std::string& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// False when it is there and cannot be read.
bool ReadFork(std::map<std::string, std::string>& fields, RewindRecord& record) {
  if (!fields.contains("fork_timeline")) return true;
  Fork fork;
  const auto lsn = base::Lsn::Parse(fields["fork_lsn"]);
  if (!lsn || !ParseWhole(fields["fork_timeline"], fork.timeline)) return false;
  fork.lsn = *lsn;
  record.fork = fork;
  return true;
}

// False when what is there of the source's history cannot be read.
bool ReadSourceHistory(std::map<std::string, std::string>& fields, RewindRecord& record) {
  if (fields.contains("source_history")) {
    record.source_history = DecodeHistory(fields["source_history"]);
  }
  if (!fields.contains("source_term")) return true;
  SourceTerm last;
  const auto start = base::Lsn::Parse(fields["source_term_lsn"]);
  if (!start || !ParseWhole(fields["source_term"], last.term)) return false;
  last.start_lsn = *start;
  last.node_id = fields["source_term_node"];
  record.source_term = std::move(last);
  return true;
}

}  // namespace

std::string DifferenceFrom(const RewindRecord& record, const SourceState& source) {
  if (source.timeline != record.source_timeline) {
    return fmt::format("the source is on timeline {}", source.timeline);
  }
  const auto same = [](const TimelineSwitch& a, const TimelineSwitch& b) {
    return a.timeline == b.timeline && a.switch_lsn == b.switch_lsn;
  };
  if (record.source_history && !std::ranges::equal(*record.source_history, source.history, same)) {
    return fmt::format("the source's timeline {} began elsewhere", source.timeline);
  }
  if (!record.source_term) return "";
  const SourceTerm& last = *record.source_term;
  // Later terms may have begun since; what is older than the rows at hand is not known.
  if (!source.terms.empty() && source.terms.front().term > last.term) return "";
  const auto row = std::ranges::find(source.terms, last.term, &observe::TermHistoryEntry::term);
  if (row != source.terms.end() && row->node_id == last.node_id &&
      row->start_lsn == last.start_lsn) {
    return "";
  }
  return fmt::format("the source's history has no term {} of {} from {} on", last.term,
                     last.node_id, last.start_lsn.ToString());
}

std::string_view RewindStageName(RewindStage stage) {
  switch (stage) {
    case RewindStage::kRunning:
      return "running";
    case RewindStage::kRewound:
      return "rewound";
    case RewindStage::kStarted:
      return "started";
  }
  return "unknown";
}

std::string RewindDirectory(const std::string& state_dir) {
  return base::JoinPath(state_dir, "rewind");
}

absl::StatusOr<RewindRecord> LoadRewindRecord(const std::string& state_dir) {
  const std::string path = RecordPath(state_dir);
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kLongestRecord));
  std::map<std::string, std::string> fields = base::DecodeMap(text);
  RewindRecord record;
  bool known = false;
  for (const RewindStage stage : kStages) {
    if (fields["stage"] != RewindStageName(stage)) continue;
    record.stage = stage;
    known = true;
  }
  const auto floor = base::Lsn::Parse(fields["floor"]);
  if (!known || !floor || !ParseWhole(fields["system_identifier"], record.system_identifier) ||
      !ParseWhole(fields["source_timeline"], record.source_timeline) ||
      !ReadSourceHistory(fields, record) || !ReadFork(fields, record)) {
    return base::Error(absl::StatusCode::kDataLoss, "{} cannot be read", path);
  }
  record.floor = *floor;
  record.source = fields["source"];
  record.repeatable = fields["repeatable"] == "true";
  return record;
}

absl::Status StoreRewindRecord(const std::string& state_dir, const RewindRecord& record) {
  std::map<std::string, std::string> fields = {
      {"stage", std::string(RewindStageName(record.stage))},
      {"source", record.source},
      {"system_identifier", fmt::format("{}", record.system_identifier)},
      {"source_timeline", fmt::format("{}", record.source_timeline)},
      {"repeatable", record.repeatable ? "true" : "false"},
      {"floor", record.floor.ToString()}};
  if (record.source_history) fields["source_history"] = EncodeHistory(*record.source_history);
  if (record.source_term) {
    fields["source_term"] = fmt::format("{}", record.source_term->term);
    fields["source_term_node"] = record.source_term->node_id;
    fields["source_term_lsn"] = record.source_term->start_lsn.ToString();
  }
  if (record.fork) {
    fields["fork_timeline"] = fmt::format("{}", record.fork->timeline);
    fields["fork_lsn"] = record.fork->lsn.ToString();
  }
  return base::WriteFileDurably(RecordPath(state_dir), base::EncodeMap(fields));
}

absl::Status RemoveRewindRecord(const std::string& state_dir) {
  const std::string path = RecordPath(state_dir);
  if (unlink(path.c_str()) != 0) {
    if (errno != ENOENT) return base::ErrnoStatus(errno, "remove", path);
  } else {
    METAL_RETURN_IF_ERROR(base::SyncDirectory(RewindDirectory(state_dir)));
  }
  return base::RemoveTree(RewindDirectory(state_dir));
}

}  // namespace metal::node
