#include "agent/node/role_answers.h"

#include <cstdlib>

#include "agent/node/rewind/timeline_history.h"
#include "agent/pg/durability.h"
#include "agent/pg/term_history.h"
#include "fmt/format.h"

namespace metal::node {

std::string TermSubject(const TermHolder& holder) { return fmt::format("term {}", holder.term); }

base::Lsn LsnIn(const OperationResult& result, const std::string& key) {
  const auto value = result.values.find(key);
  if (value == result.values.end()) return {};
  return base::Lsn::Parse(value->second).value_or(base::Lsn());
}

base::TimelineId TimelineIn(const OperationResult& result) {
  const auto value = result.values.find("timeline");
  return value == result.values.end()
             ? 0
             : static_cast<base::TimelineId>(std::strtoul(value->second.c_str(), nullptr, 10));
}

bool FlagIn(const OperationResult& result, const std::string& key) {
  const auto value = result.values.find(key);
  return value != result.values.end() && value->second == "true";
}

std::string TextIn(const OperationResult& result, const std::string& key) {
  const auto value = result.values.find(key);
  return value == result.values.end() ? "" : value->second;
}

std::string Flag(bool value) { return value ? "true" : "false"; }

void PutPosition(OperationResult& result, const WalPosition& position) {
  result.values["timeline"] = fmt::format("{}", position.timeline);
  result.values["received_lsn"] = position.received.ToString();
  result.values["replayed_lsn"] = position.replayed.ToString();
  result.values["history"] = EncodeHistory(position.history);
}

WalPosition PositionIn(const OperationResult& result) {
  WalPosition position;
  position.timeline = TimelineIn(result);
  position.received = LsnIn(result, "received_lsn");
  position.replayed = LsnIn(result, "replayed_lsn");
  const auto history = result.values.find("history");
  if (history != result.values.end()) position.history = DecodeHistory(history->second);
  return position;
}

BeginTermAnswer BeginTermAnswerOf(const OperationResult& result) {
  BeginTermAnswer answer;
  answer.position = PositionIn(result);
  answer.was_primary = FlagIn(result, "was_primary");
  answer.postgres_down = FlagIn(result, "postgres_down");
  answer.term_history = pg::DecodeTermHistory(TextIn(result, "term_history"));
  const auto durability = pg::DecodeDurability(TextIn(result, "durability"));
  if (durability.ok()) answer.durability = *durability;
  return answer;
}

PromoteAnswer PromoteAnswerOf(const OperationResult& result) {
  return {TimelineIn(result), LsnIn(result, "lsn")};
}

}  // namespace metal::node
