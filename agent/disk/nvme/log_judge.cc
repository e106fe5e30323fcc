#include "agent/disk/nvme/log_judge.h"

#include <algorithm>

#include "agent/disk/nvme/log_evidence.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

// Whether a log that this witness reads is there: without one it does not see an end either.
bool CanSee(Witness witness, FaultClass fault_class, const DriveLogs& logs) {
  switch (witness) {
    case Witness::kSmartLog:
      return logs.smart.has_value();
    case Witness::kErrorLog:
      return logs.self_tests.has_value();
    case Witness::kVendorLog:
      return fault_class == FaultClass::kThrottled ? logs.aws.has_value() : logs.ocp.has_value();
    default:
      return true;
  }
}

}  // namespace

std::vector<Evidence> LogJudge::Judge(const DriveLogs& present) {
  std::vector<Evidence> evidence;
  for (Finding& finding : FindingsOfLogs(device_, previous_ ? &*previous_ : nullptr, present)) {
    const Key key(finding.evidence.fault_class, finding.evidence.witness);
    if (finding.lasting != Lasting::kOnce) {
      const bool grows = finding.lasting == Lasting::kGrowth;
      base::MonotonicTime& until = stands_until_[key];
      until = std::max(until, grows ? present.monotonic + kQuiet : present.monotonic);
    }
    evidence.push_back(std::move(finding.evidence));
  }
  for (Evidence& ended : Ended(present)) evidence.push_back(std::move(ended));
  previous_ = present;
  return evidence;
}

std::vector<Evidence> LogJudge::Ended(const DriveLogs& present) {
  std::vector<Evidence> ended;
  std::erase_if(stands_until_, [&](const auto& each) {
    const auto& [key, until] = each;
    if (until >= present.monotonic || !CanSee(key.second, key.first, present)) return false;
    Evidence evidence;
    evidence.fault_class = key.first;
    evidence.witness = key.second;
    evidence.clears = true;
    evidence.device = device_;
    evidence.text = fmt::format("no longer {}, says its {}", FaultClassName(key.first),
                                WitnessName(key.second));
    evidence.time = present.time;
    ended.push_back(std::move(evidence));
    return true;
  });
  return ended;
}

std::vector<Evidence> LogJudge::Withdraw(const std::string& reason, absl::Time now) {
  std::vector<Evidence> withdrawn;
  for (const auto& [key, until] : stands_until_) {
    Evidence evidence;
    evidence.fault_class = key.first;
    evidence.witness = key.second;
    evidence.clears = true;
    evidence.device = device_;
    evidence.text = reason;
    evidence.time = now;
    withdrawn.push_back(std::move(evidence));
  }
  stands_until_.clear();
  previous_.reset();
  return withdrawn;
}

}  // namespace metal::disk
