#include "agent/pg/term_history.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::pg {
namespace {

using observe::TermHistoryEntry;

bool SamePrimary(const TermHistoryEntry& a, const TermHistoryEntry& b) {
  return a.term == b.term && a.timeline == b.timeline && a.start_lsn == b.start_lsn &&
         a.node_id == b.node_id && a.time == b.time;
}

std::string Describe(const TermHistoryEntry& entry) {
  return fmt::format("term {} on timeline {} from {} by {}", entry.term, entry.timeline,
                     entry.start_lsn.ToString(), entry.node_id);
}

HistoryComparison Diverged(const TermHistoryEntry& a, const TermHistoryEntry& b) {
  const bool invisible = a.timeline == b.timeline;
  return {HistoryRelation::kDiverged, invisible, invisible ? a.timeline : 0,
          fmt::format("one had {}, the other {}", Describe(a), Describe(b))};
}

template <typename Number>
bool TakeNumber(std::string_view& line, Number& out) {
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), out);
  if (error != std::errc() || end == line.data() + line.size() || *end != '\t') return false;
  line.remove_prefix(static_cast<size_t>(end - line.data()) + 1);
  return true;
}

std::string_view TakeField(std::string_view& line) {
  const size_t end = line.find('\t');
  const std::string_view field = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  return field;
}

// A superuser may have written anything there.
std::string Clean(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, '?');
  return text;
}

absl::Status Refused(std::string message, std::map<std::string, std::string> metadata) {
  return base::WithReason(absl::FailedPreconditionError(std::move(message)),
                          {"HISTORY_DIVERGED", std::move(metadata)});
}

}  // namespace

HistoryComparison CompareTermHistories(std::span<const TermHistoryEntry> first,
                                       std::span<const TermHistoryEntry> second) {
  HistoryComparison comparison;
  if (first.empty() || second.empty()) return comparison;
  // What is older than either window is not known of both.
  const uint64_t from = std::max(first.front().term, second.front().term);
  const auto older = [from](const TermHistoryEntry& entry) { return entry.term < from; };
  auto a = std::find_if_not(first.begin(), first.end(), older);
  auto b = std::find_if_not(second.begin(), second.end(), older);
  // One ends before the other's window begins: they may be one history or two.
  if (a == first.end() || b == second.end()) return comparison;
  while (a != first.end() && b != second.end()) {
    if (!SamePrimary(*a, *b)) return Diverged(*a, *b);
    ++a;
    ++b;
  }
  comparison.relation = a != first.end()    ? HistoryRelation::kSecondOlder
                        : b != second.end() ? HistoryRelation::kFirstOlder
                                            : HistoryRelation::kSame;
  return comparison;
}

absl::Status CheckMayFollow(std::span<const TermHistoryEntry> own,
                            std::span<const TermHistoryEntry> theirs, SourceHistory known) {
  const HistoryComparison comparison = CompareTermHistories(own, theirs);
  if (comparison.relation == HistoryRelation::kSecondOlder && known == SourceHistory::kWhole) {
    return Refused(
        fmt::format("this node's history goes beyond the primary's: it had {}, which the "
                    "primary never saw. HINT: Rewind or Clone this node",
                    Describe(own.back())),
        {{"rewind", "possible"}});
  }
  if (comparison.relation != HistoryRelation::kDiverged) return absl::OkStatus();
  if (comparison.invisible_to_rewind) {
    return Refused(
        fmt::format("this node's history is another one on the same timeline: {}. HINT: "
                    "Clone this node; pg_rewind cannot see the difference",
                    comparison.explanation),
        {{"rewind", "impossible"}, {"timeline", fmt::format("{}", comparison.timeline)}});
  }
  return Refused(fmt::format("this node's history is another one than the primary's: {}. HINT: "
                             "Rewind or Clone this node",
                             comparison.explanation),
                 {{"rewind", "possible"}});
}

absl::Status CheckMayPromote(std::span<const TermHistoryEntry> own, uint64_t term,
                             std::string_view node_id) {
  if (own.empty()) return absl::OkStatus();
  const TermHistoryEntry& last = own.back();
  if (last.term < term || (last.term == term && last.node_id == node_id)) return absl::OkStatus();
  return Refused(fmt::format("term {} cannot begin here: what this node replayed had {} already. "
                             "HINT: begin a term above {}",
                             term, Describe(last), last.term),
                 {{"rewind", "impossible"}, {"last_term", fmt::format("{}", last.term)}});
}

std::string EncodeTermHistory(std::span<const TermHistoryEntry> history) {
  std::string text;
  for (const TermHistoryEntry& entry : history) {
    text += fmt::format("{}\t{}\t{}\t{}\t{}\t{}\n", entry.term, entry.timeline,
                        absl::ToUnixMicros(entry.time), entry.start_lsn.ToString(),
                        Clean(entry.node_id), Clean(entry.orchestrator_id));
  }
  return text;
}

TermHistory DecodeTermHistory(std::string_view text) {
  TermHistory history;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    TermHistoryEntry entry;
    int64_t micros = 0;
    if (!TakeNumber(line, entry.term) || !TakeNumber(line, entry.timeline) ||
        !TakeNumber(line, micros)) {
      continue;
    }
    const auto lsn = base::Lsn::Parse(TakeField(line));
    if (!lsn) continue;
    entry.start_lsn = *lsn;
    entry.time = absl::FromUnixMicros(micros);
    entry.node_id = TakeField(line);
    entry.orchestrator_id = TakeField(line);
    history.push_back(std::move(entry));
  }
  return history;
}

}  // namespace metal::pg
