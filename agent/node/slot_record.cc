#include "agent/node/slot_record.h"

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::node {

absl::StatusOr<std::set<std::string>> SlotRecord::Load() const {
  const auto text = base::ReadFile(path_);
  if (absl::IsNotFound(text.status())) return std::set<std::string>();
  if (!text.ok()) return text.status();
  return std::set<std::string>(absl::StrSplit(*text, '\n', absl::SkipEmpty()));
}

absl::Status SlotRecord::Store(const std::set<std::string>& slots) const {
  METAL_ASSIGN_OR_RETURN(const std::set<std::string> present, Load());
  if (present == slots) return absl::OkStatus();
  return base::WriteFileDurably(path_, absl::StrJoin(slots, "\n") + "\n", 0600);
}

}  // namespace metal::node
