// The desk's part for operators: faults that are known, and do not count.
#include <algorithm>

#include "agent/base/status.h"
#include "agent/disk/faults/fault_desk.h"
#include "agent/observe/emit.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::disk {
namespace {

using base::MutexLock;

// For the faults of before the agent's start to come back: sources that look rarely do so every ten
// minutes. One that comes later is another occurrence.
constexpr absl::Duration kReturn = absl::Minutes(15);
constexpr size_t kMostAcknowledged = 256;

std::pair<std::string, std::string> KeyOf(const DiskFault& fault) {
  return {std::string(FaultClassName(fault.fault_class)), fault.subject};
}

absl::Status Live(const DiskFault& fault) {
  const auto [fault_class, subject] = KeyOf(fault);
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "{} of {} is fatal, and still seen: whoever relies on this disk loses what it is "
                  "given. HINT: change the drive; --force takes it for known all the same",
                  fault_class, subject),
      {"FAULT_LIVE", {{"fault_class", fault_class}, {"subject", subject}}});
}

}  // namespace

absl::StatusOr<std::vector<DiskFault>> FaultDesk::Find(const AcknowledgeRequest& request) const {
  std::vector<DiskFault> found;
  std::vector<std::string> all;
  for (DiskFault& fault : book_.faults()) {
    const auto [fault_class, subject] = KeyOf(fault);
    all.push_back(fault_class + " " + subject);
    if (fault_class != request.fault_class) continue;
    if (!request.subject.empty() && subject != request.subject) continue;
    if (!request.device.empty() && fault.device != request.device) continue;
    found.push_back(std::move(fault));
  }
  if (found.empty()) {
    return base::Error(absl::StatusCode::kNotFound,
                       "no fault {}{}{} of a disk. HINT: there are: {}", request.fault_class,
                       request.subject.empty() ? "" : " " + request.subject,
                       request.device.empty() ? "" : " on " + request.device,
                       all.empty() ? "none" : fmt::format("{}", fmt::join(all, ", ")));
  }
  if (found.size() > 1 && request.subject.empty() && request.device.empty()) {
    std::vector<std::string> subjects;
    for (const DiskFault& fault : found) subjects.push_back(fault.subject);
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "{} faults are {}. HINT: name one of {}, or a device", found.size(),
                       request.fault_class, fmt::join(subjects, ", "));
  }
  return found;
}

absl::StatusOr<std::vector<observe::Fault>> FaultDesk::Acknowledge(
    const AcknowledgeRequest& request) {
  MutexLock lock(mutex_);
  METAL_ASSIGN_OR_RETURN(const std::vector<DiskFault> faults, Find(request));
  const absl::Time now = clock_.Now();
  for (const DiskFault& fault : faults) {
    const bool fatal = fault.confirmed && RowOf(fault.fault_class).fatal;
    if (fatal && !request.force && IsLive(fault, now)) return Live(fault);
  }
  std::vector<observe::Fault> shown;
  for (const DiskFault& fault : faults) {
    Acknowledgement made{.fault_class = KeyOf(fault).first,
                         .subject = fault.subject,
                         .device = fault.device,
                         .serial = FactsOf(fault).serial,
                         .confirmed = fault.confirmed,
                         .witnesses = {},
                         .caller = request.caller,
                         .reason = request.reason,
                         .time = now};
    for (const Evidence& each : fault.evidence) {
      made.witnesses.insert(std::string(WitnessName(each.witness)));
    }
    TellAcknowledged(made, false);
    acknowledged_[KeyOf(fault)] = std::move(made);
    ShowInStatus(fault);
    shown.push_back(Shown(fault));
  }
  return shown;
}

void FaultDesk::Withdraw(const std::vector<observe::Fault>& faults) {
  MutexLock lock(mutex_);
  for (const observe::Fault& each : faults) acknowledged_.erase({each.fault_class, each.subject});
  for (const DiskFault& fault : book_.faults()) ShowInStatus(fault);
}

void FaultDesk::Restore(std::vector<Acknowledgement> acknowledged) {
  MutexLock lock(mutex_);
  for (Acknowledgement& each : acknowledged) {
    if (acknowledged_.size() >= kMostAcknowledged) break;
    const std::pair<std::string, std::string> key(each.fault_class, each.subject);
    acknowledged_.try_emplace(key, std::move(each));
  }
  restored_ = clock_.Monotonic();
  for (const DiskFault& fault : book_.faults()) {
    Reconsider(fault);
    ShowInStatus(fault);
  }
}

void FaultDesk::ForgetThoseThatStayedAway() {
  if (!restored_ || clock_.Monotonic() - *restored_ < kReturn) return;
  restored_.reset();
  std::set<std::pair<std::string, std::string>> present;
  for (const DiskFault& fault : book_.faults()) present.insert(KeyOf(fault));
  std::erase_if(acknowledged_, [&](const auto& each) { return !present.contains(each.first); });
}

std::vector<Acknowledgement> FaultDesk::acknowledged() const {
  MutexLock lock(mutex_);
  std::vector<Acknowledgement> all;
  for (const auto& [key, each] : acknowledged_) all.push_back(each);
  return all;
}

const Acknowledgement* FaultDesk::AcknowledgementOf(const DiskFault& fault) const {
  const auto found = acknowledged_.find(KeyOf(fault));
  return found == acknowledged_.end() ? nullptr : &found->second;
}

void FaultDesk::Reconsider(const DiskFault& fault) {
  const auto found = acknowledged_.find(KeyOf(fault));
  if (found == acknowledged_.end()) return;
  const std::string serial = FactsOf(fault).serial;
  const std::string& known = found->second.serial;
  const bool other_drive = !serial.empty() && !known.empty() && serial != known;
  if (!other_drive && !Outgrows(fault, found->second)) return;
  TellAcknowledged(found->second, true);
  acknowledged_.erase(found);
}

void FaultDesk::TellAcknowledged(const Acknowledgement& acknowledged, bool counts_again) {
  const std::string of = acknowledged.fault_class + " of " + acknowledged.subject;
  const std::string why = acknowledged.reason.empty() ? "" : ": " + acknowledged.reason;
  observe::Emit(
      events_, counts_again ? observe::Severity::kWarning : observe::Severity::kInfo,
      counts_again ? "disk.fault_counts_again" : "disk.fault_acknowledged", acknowledged.subject,
      counts_again ? fmt::format("{} is more than what {} had acknowledged: it counts again", of,
                                 acknowledged.caller)
                   : fmt::format("{} is known to {}, and counts in no decision{}", of,
                                 acknowledged.caller, why),
      {{"class", acknowledged.fault_class},
       {"device", acknowledged.device},
       {"serial", acknowledged.serial},
       {"caller", acknowledged.caller},
       {"reason", acknowledged.reason}});
}

}  // namespace metal::disk
