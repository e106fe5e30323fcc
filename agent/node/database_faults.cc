#include "agent/node/database_faults.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "agent/base/status.h"
#include "agent/node/database_role.h"

namespace metal::node {
namespace {

// As PostgreSQL reads a truth value: any beginning of a word that is one alone.
bool MeansOff(const std::string& value) {
  std::string word = absl::AsciiStrToLower(value);
  absl::StripAsciiWhitespace(&word);
  if (word.empty()) return false;
  const auto begins = [&](std::string_view whole) { return whole.starts_with(word); };
  return word == "0" || begins("false") || begins("no") || (word.size() > 1 && begins("off"));
}

}  // namespace

std::optional<observe::Fault> FaultUnderDatabase(const observe::NodeStatus& status,
                                                 std::string_view fault_class) {
  for (const auto& [key, fault] : status.faults) {
    if (fault.fault_class != fault_class || fault.disk == nullptr) continue;
    if (!fault.disk->confirmed || fault.disk->acknowledged) continue;
    if (std::ranges::any_of(fault.disk->roles, IsDatabaseRole)) return fault;
  }
  return std::nullopt;
}

bool DriveIsHot(const observe::NodeStatus& status) {
  const auto hot = FaultUnderDatabase(status, "overheating");
  return hot && std::ranges::any_of(hot->disk->evidence, [](const auto& each) {
           return each.witness == "smart_log" || each.witness == "vendor_log";
         });
}

absl::Status CheckTornPages(const observe::NodeStatus& status,
                            const std::map<std::string, std::string>& settings) {
  const bool off = std::ranges::any_of(settings, [](const auto& setting) {
    return absl::AsciiStrToLower(setting.first) == "full_page_writes" && MeansOff(setting.second);
  });
  if (!off) return absl::OkStatus();
  const auto torn = FaultUnderDatabase(status, "torn_writes");
  if (!torn) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "full_page_writes stays on: {}. HINT: metalctl disk acknowledge torn_writes, if "
                  "capacitors or a file system write pages as a whole",
                  torn->message),
      {"TORN_WRITES", {{"device", torn->disk->device}}});
}

}  // namespace metal::node
