// Which replication slots are the agent's own (it made them, or was told of them under its prefix):
// only those may it drop. Kept in state_dir, one name on a line. Threading: blocks on the state
// directory's disk; one caller at a time (the action lock).
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::node {

class SlotRecord {
 public:
  explicit SlotRecord(std::string path) : path_(std::move(path)) {}
  // Empty when there is no file.
  absl::StatusOr<std::set<std::string>> Load() const;
  // Durable; before the slot is made, and after it was dropped.
  absl::Status Store(const std::set<std::string>& slots) const;

 private:
  std::string path_;
};

}  // namespace metal::node
