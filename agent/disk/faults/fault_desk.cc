#include "agent/disk/faults/fault_desk.h"

#include <algorithm>
#include <utility>

#include "agent/observe/emit.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::disk {
namespace {

using base::MutexLock;
using observe::Severity;

observe::FaultEvidence ShownEvidence(const Evidence& evidence) {
  observe::FaultEvidence shown;
  shown.witness = std::string(WitnessName(evidence.witness));
  shown.text = evidence.text;
  shown.kernel_line = evidence.kernel_line;
  if (evidence.probe_result) shown.probe_outcome = ProbeResultName(*evidence.probe_result);
  shown.outstanding = evidence.outstanding;
  shown.error_number = evidence.error_number;
  if (evidence.nvme_status) {
    shown.nvme_status_type = evidence.nvme_status->type;
    shown.nvme_status_code = evidence.nvme_status->code;
  }
  shown.sector = evidence.sector;
  shown.delta = evidence.delta;
  shown.time = evidence.time;
  return shown;
}

Severity SeverityOf(const DiskFault& fault) {
  const FaultRow& row = RowOf(fault.fault_class);
  if (fault.confirmed) return row.severity;
  return std::min(row.severity, row.fatal ? Severity::kError : Severity::kWarning);
}

// What one of them does not know is no difference.
bool IsAnother(const DiskFacts& before, const DiskFacts& now) {
  return !before.serial.empty() && !now.serial.empty() && before.serial != now.serial;
}

}  // namespace

void FaultDesk::Take(Evidence evidence) {
  if (evidence.time == absl::Time()) evidence.time = clock_.Now();
  MutexLock lock(mutex_);
  if (evidence.device.empty()) evidence.device = DeviceOf(evidence.role);
  const auto disk = disks_.find(evidence.device);
  const bool of_all_roles = RowOf(evidence.fault_class).of_filesystem && evidence.role.empty() &&
                            disk != disks_.end() && !disk->second.roles.empty();
  if (!of_all_roles) return Show(book_.Take(evidence, clock_.Monotonic()));
  // Who knows only the disk speaks of each role on it: there a probe that says the same is found.
  for (const std::string& role : disk->second.roles) {
    evidence.role = role;
    Show(book_.Take(evidence, clock_.Monotonic()));
  }
}

std::string FaultDesk::DeviceOf(const std::string& role) const {
  if (role.empty()) return "";
  for (const auto& [device, facts] : disks_) {
    if (facts.roles.contains(role)) return device;
  }
  return "";
}

void FaultDesk::Tick() {
  MutexLock lock(mutex_);
  Show(book_.Expire(clock_.Monotonic()));
  ForgetThoseThatStayedAway();
}

void FaultDesk::SetDisks(std::map<std::string, DiskFacts> disks) {
  MutexLock lock(mutex_);
  std::set<std::string> others;
  for (const DiskFault& fault : book_.faults()) {
    const auto now = disks.find(fault.device);
    const bool same = now != disks.end() && !IsAnother(FactsOf(fault), now->second);
    if (!fault.device.empty() && !same) others.insert(fault.device);
  }
  for (const std::string& device : others) Show(book_.Forget(device));
  disks_ = std::move(disks);
  for (const DiskFault& fault : book_.faults()) {  // with what is known now
    Reconsider(fault);
    ShowInStatus(fault);
  }
}

void FaultDesk::ForgetRole(const std::string& role) {
  MutexLock lock(mutex_);
  Show(book_.ForgetRole(role));
}

void FaultDesk::SetPolicy(ReactionPolicy policy) {
  MutexLock lock(mutex_);
  policy_ = std::move(policy);
}

void FaultDesk::NoteAction(const std::string& fault_class, const std::string& subject,
                           const std::string& text) {
  MutexLock lock(mutex_);
  for (const DiskFault& fault : book_.faults()) {
    if (fault.subject != subject || FaultClassName(fault.fault_class) != fault_class) continue;
    actions_[{fault_class, subject}].push_back(text);
    ShowInStatus(fault);
  }
}

void FaultDesk::Show(const std::vector<FaultChange>& changes) {
  for (const FaultChange& change : changes) {
    if (change.news == FaultNews::kCleared) {
      const std::string fault_class(FaultClassName(change.fault.fault_class));
      board_.ClearFault(fault_class, change.fault.subject);
      actions_.erase({fault_class, change.fault.subject});
      acknowledged_.erase({fault_class, change.fault.subject});
    } else {
      Reconsider(change.fault);
      ShowInStatus(change.fault);
    }
    if (change.news != FaultNews::kMore) Tell(change);
  }
}

DiskFacts FaultDesk::FactsOf(const DiskFault& fault) const {
  DiskFacts facts;
  if (const auto found = disks_.find(fault.device); found != disks_.end()) facts = found->second;
  if (RowOf(fault.fault_class).of_filesystem && !fault.roles.empty()) facts.roles.clear();
  facts.roles.insert(fault.roles.begin(), fault.roles.end());
  return facts;
}

observe::Fault FaultDesk::Shown(const DiskFault& fault) const {
  const FaultRow& row = RowOf(fault.fault_class);
  const DiskFacts facts = FactsOf(fault);
  observe::DiskFaultDetail detail;
  detail.device = fault.device;
  detail.serial = facts.serial;
  detail.path = facts.path;
  detail.roles.assign(facts.roles.begin(), facts.roles.end());
  detail.confirmed = fault.confirmed;
  detail.fatal = row.fatal;
  detail.reaction = std::string(ReactionName(policy_.For(fault)));
  detail.last_seen = fault.last_seen;
  for (const Evidence& each : fault.evidence) detail.evidence.push_back(ShownEvidence(each));
  observe::Fault shown;
  shown.fault_class = std::string(FaultClassName(fault.fault_class));
  const auto actions = actions_.find({shown.fault_class, fault.subject});
  if (actions != actions_.end()) detail.actions = actions->second;
  shown.subject = fault.subject;
  shown.severity = SeverityOf(fault);
  if (const Acknowledgement* const known = AcknowledgementOf(fault)) {
    shown.severity = Severity::kInfo;
    detail.acknowledged = {known->caller, known->reason, known->time};
  }
  shown.message = FaultMessage(fault);
  shown.since = fault.first_seen;
  shown.disk = std::make_shared<const observe::DiskFaultDetail>(std::move(detail));
  return shown;
}

void FaultDesk::ShowInStatus(const DiskFault& fault) { board_.RaiseFault(Shown(fault)); }

void FaultDesk::Tell(const FaultChange& change) {
  const DiskFault& fault = change.fault;
  const FaultRow& row = RowOf(fault.fault_class);
  const DiskFacts facts = FactsOf(fault);
  std::vector<std::string_view> witnesses;
  std::map<std::string, std::string> attributes = {
      {"class", std::string(FaultClassName(fault.fault_class))},
      {"device", fault.device},
      {"serial", facts.serial},
      {"roles", fmt::format("{}", fmt::join(facts.roles, ","))},
      {"seconds", fmt::format("{:.3f}", absl::ToDoubleSeconds(clock_.Now() - fault.first_seen))},
      {"fatal", row.fatal ? "true" : "false"},
      {"reaction", std::string(ReactionName(policy_.For(fault)))}};
  for (const Evidence& each : fault.evidence) {
    witnesses.push_back(WitnessName(each.witness));
    if (!each.kernel_line.empty()) attributes["kernel_line"] = each.kernel_line;
  }
  attributes["witnesses"] = fmt::format("{}", fmt::join(witnesses, ","));
  const bool cleared = change.news == FaultNews::kCleared;
  observe::Emit(
      events_, cleared ? Severity::kInfo : SeverityOf(fault),
      cleared           ? "disk.fault_cleared"
      : fault.confirmed ? "disk.fault_confirmed"
                        : "disk.fault_suspected",
      fault.subject,
      cleared ? fmt::format("{} is over on {}", row.title, fault.subject) : FaultMessage(fault),
      std::move(attributes));
}

}  // namespace metal::disk
