// Answers of role changes as the facts of their operations, and back: the operation is what a
// repeated call finds again. Threading: pure functions.
#pragma once

#include <string>

#include "agent/base/units.h"
#include "agent/node/operations/operation.h"
#include "agent/node/requests.h"

namespace metal::node {

// "term 7": what an operation under a term is about.
std::string TermSubject(const TermHolder& holder);

// Facts that are absent are 0 or false.
base::Lsn LsnIn(const OperationResult& result, const std::string& key);
base::TimelineId TimelineIn(const OperationResult& result);  // "timeline"
bool FlagIn(const OperationResult& result, const std::string& key);
std::string TextIn(const OperationResult& result, const std::string& key);
std::string Flag(bool value);

void PutPosition(OperationResult& result, const WalPosition& position);
WalPosition PositionIn(const OperationResult& result);

BeginTermAnswer BeginTermAnswerOf(const OperationResult& result);
PromoteAnswer PromoteAnswerOf(const OperationResult& result);

}  // namespace metal::node
