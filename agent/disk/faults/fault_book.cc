#include "agent/disk/faults/fault_book.h"

#include <algorithm>
#include <cerrno>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::disk {
namespace {

std::string SubjectOf(const Evidence& evidence) {
  const bool by_role = RowOf(evidence.fault_class).of_filesystem && !evidence.role.empty();
  if (evidence.device.empty()) return evidence.role;
  return by_role ? evidence.device + ":" + evidence.role : evidence.device;
}

// What I/O to a drive that is not there ends with.
bool IsErrorOfIo(FaultClass fault_class) {
  return fault_class == FaultClass::kMediaError || fault_class == FaultClass::kWriteError ||
         fault_class == FaultClass::kFsyncError;
}

// I/O that was under way fails before the kernel tells of the removal.
constexpr absl::Duration kRemovalTakes = absl::Seconds(5);

// A sector that cannot be read says so, and is no sign of a removal; nor is a drive's own counter.
bool NamesTheMedium(const Evidence& evidence) {
  const bool counted = evidence.delta && evidence.witness != Witness::kProbe;
  return evidence.nvme_status || evidence.error_number == ENODATA || counted;
}

}  // namespace

bool TellsOfAnEvent(const Evidence& evidence) {
  switch (evidence.witness) {
    case Witness::kKernelLog:
    case Witness::kErrorLog:
    case Witness::kVendorLog:
    case Witness::kPostgresLog:
    case Witness::kChecksums:
      return true;
    default:
      return evidence.delta.has_value();
  }
}

void FaultBook::Refresh(Entry& entry) {
  entry.fault.evidence.clear();
  for (const auto& [witness, testimony] : entry.testimonies) {
    entry.fault.evidence.push_back(testimony.latest);
    entry.fault.last_seen = std::max(entry.fault.last_seen, testimony.latest.time);
    if (!testimony.latest.role.empty()) entry.fault.roles.insert(testimony.latest.role);
  }
}

bool FaultBook::IsConfirmed(const FaultRow& row, const Entry& entry, base::MonotonicTime now) {
  std::set<EvidenceSource> sources;
  bool firm = false;
  for (const auto& [witness, testimony] : entry.testimonies) {
    if (row.seen_by.contains(witness)) sources.insert(SourceOf(witness));
    firm = firm || testimony.firm;
  }
  if (firm && static_cast<int>(sources.size()) >= row.witnesses) return true;
  if (row.sightings == 0) return false;
  return std::ranges::any_of(entry.testimonies, [&](const auto& each) {
    const std::deque<base::MonotonicTime>& seen = each.second.sightings;
    return static_cast<int>(seen.size()) >= row.sightings && now - seen.front() <= row.within;
  });
}

std::vector<FaultChange> FaultBook::Take(const Evidence& evidence, base::MonotonicTime now) {
  if (evidence.clears || evidence.retracts) return Withdraw(evidence);
  if (IsErrorOfIo(evidence.fault_class) && !evidence.device.empty()) {
    const auto gone = entries_.find({FaultClass::kGone, evidence.device});
    if (gone != entries_.end()) return TakeAsGone(evidence, gone->second, now);
  }
  if (IsErrorOfIo(evidence.fault_class) && IsShutDownBelow(evidence)) {
    Evidence meant = evidence;
    meant.fault_class = FaultClass::kFilesystemShutdown;
    std::vector<FaultChange> changes = TakeAsIs(meant, now);
    if (evidence.fault_class == FaultClass::kMediaError) return changes;
    // A write that was lost stays one, also when the file system is mounted again.
    for (FaultChange& each : TakeAsIs(evidence, now)) changes.push_back(std::move(each));
    return changes;
  }
  return TakeAsIs(evidence, now);
}

std::vector<FaultChange> FaultBook::TakeAsIs(const Evidence& evidence, base::MonotonicTime now) {
  const FaultRow& row = RowOf(evidence.fault_class);
  const std::string subject = SubjectOf(evidence);
  const auto [found, is_new] = entries_.try_emplace({evidence.fault_class, subject});
  Entry& entry = found->second;
  if (is_new) {
    entry.fault.fault_class = evidence.fault_class;
    entry.fault.subject = subject;
    entry.fault.device = evidence.device;
    entry.fault.first_seen = entry.fault.last_seen = evidence.time;
    entry.first = now;
  }
  Testimony& testimony = entry.testimonies[evidence.witness];
  testimony.latest = evidence;
  testimony.last = now;
  const bool firm = !evidence.hearsay && row.seen_by.contains(evidence.witness);
  testimony.firm = testimony.firm || firm;
  const bool again = testimony.sightings.empty() || now - testimony.sightings.back() >= row.apart;
  if (firm && again) testimony.sightings.push_back(now);
  while (static_cast<int>(testimony.sightings.size()) > std::max(row.sightings, 1)) {
    testimony.sightings.pop_front();
  }
  Refresh(entry);
  const bool was_confirmed = entry.fault.confirmed;
  entry.fault.confirmed = was_confirmed || IsConfirmed(row, entry, now);
  const FaultNews news = entry.fault.confirmed && !was_confirmed ? FaultNews::kConfirmed
                         : is_new                                ? FaultNews::kSuspected
                                                                 : FaultNews::kMore;
  std::vector<FaultChange> changes = {{news, entry.fault}};
  if (is_new && evidence.fault_class == FaultClass::kGone && !evidence.device.empty()) {
    for (FaultChange& each : TakeOverAsGone(evidence.device, now)) {
      changes.push_back(std::move(each));
    }
  }
  return changes;
}

std::vector<FaultChange> FaultBook::TakeOverAsGone(const std::string& device,
                                                   base::MonotonicTime now) {
  std::vector<FaultChange> changes;
  for (auto each = entries_.begin(); each != entries_.end();) {
    const Entry& entry = each->second;
    const bool same = IsErrorOfIo(each->first.first) && entry.fault.device == device &&
                      now - entry.first <= kRemovalTakes &&
                      std::ranges::none_of(entry.fault.evidence, NamesTheMedium);
    if (!same) {
      ++each;
      continue;
    }
    changes.push_back({FaultNews::kCleared, entry.fault});
    each = entries_.erase(each);
  }
  const size_t cleared = changes.size();
  for (size_t i = 0; i < cleared; ++i) {
    for (const Evidence& said : std::vector<Evidence>(changes[i].fault.evidence)) {
      for (FaultChange& more : Take(said, now)) changes.push_back(std::move(more));
    }
  }
  return changes;
}

std::vector<FaultChange> FaultBook::TakeAsGone(const Evidence& evidence, const Entry& gone,
                                               base::MonotonicTime now) {
  // What a witness itself said of it says more.
  if (gone.testimonies.contains(evidence.witness)) return {};
  Evidence meant = evidence;
  meant.fault_class = FaultClass::kGone;
  meant.text = fmt::format("{} (the device was gone)", evidence.text);
  return Take(meant, now);
}

bool FaultBook::IsShutDownBelow(const Evidence& evidence) const {
  if (evidence.witness != Witness::kProbe || evidence.error_number != EIO) return false;
  Evidence of_filesystem = evidence;
  of_filesystem.fault_class = FaultClass::kFilesystemShutdown;
  const auto found = entries_.find({FaultClass::kFilesystemShutdown, SubjectOf(of_filesystem)});
  return found != entries_.end() &&
         std::ranges::any_of(found->second.testimonies, [](const auto& each) {
           return each.second.firm && SourceOf(each.first) != EvidenceSource::kProbes;
         });
}

std::vector<FaultChange> FaultBook::Withdraw(const Evidence& evidence) {
  const auto found = entries_.find({evidence.fault_class, SubjectOf(evidence)});
  if (found == entries_.end()) return {};
  Entry& entry = found->second;
  const DiskFault before = entry.fault;
  const bool counted = entry.testimonies.erase(evidence.witness) > 0;
  const bool over = evidence.clears && RowOf(evidence.fault_class).ends_at_once;
  if (entry.testimonies.empty() || over) {
    entries_.erase(found);
    return {{FaultNews::kCleared, before}};
  }
  if (!counted) return {};
  Refresh(entry);
  return {{FaultNews::kMore, entry.fault}};
}

std::vector<FaultChange> FaultBook::Expire(base::MonotonicTime now) {
  std::vector<FaultChange> changes;
  for (auto each = entries_.begin(); each != entries_.end();) {
    Entry& entry = each->second;
    const absl::Duration quiet = RowOf(entry.fault.fault_class).quiet;
    const DiskFault before = entry.fault;
    const size_t over = std::erase_if(entry.testimonies, [&](const auto& item) {
      return TellsOfAnEvent(item.second.latest) && now - item.second.last >= quiet;
    });
    if (over == 0) {
      ++each;
      continue;
    }
    if (entry.testimonies.empty()) {
      changes.push_back({FaultNews::kCleared, before});
      each = entries_.erase(each);
      continue;
    }
    Refresh(entry);
    changes.push_back({FaultNews::kMore, entry.fault});
    ++each;
  }
  return changes;
}

std::vector<FaultChange> FaultBook::Forget(const std::string& device) {
  std::vector<FaultChange> changes;
  std::erase_if(entries_, [&](const auto& each) {
    if (each.second.fault.device != device) return false;
    changes.push_back({FaultNews::kCleared, each.second.fault});
    return true;
  });
  return changes;
}

std::vector<FaultChange> FaultBook::ForgetRole(const std::string& role) {
  std::vector<FaultChange> changes;
  for (auto each = entries_.begin(); each != entries_.end();) {
    Entry& entry = each->second;
    const DiskFault before = entry.fault;
    const size_t gone = std::erase_if(
        entry.testimonies, [&](const auto& item) { return item.second.latest.role == role; });
    if (gone > 0 && entry.testimonies.empty()) {
      changes.push_back({FaultNews::kCleared, before});
      each = entries_.erase(each);
      continue;
    }
    if (gone > 0) {
      Refresh(entry);
      changes.push_back({FaultNews::kMore, entry.fault});
    }
    ++each;
  }
  return changes;
}

std::vector<DiskFault> FaultBook::faults() const {
  std::vector<DiskFault> faults;
  for (const auto& [key, entry] : entries_) faults.push_back(entry.fault);
  return faults;
}

std::string FaultMessage(const DiskFault& fault) {
  std::vector<std::string_view> witnesses;
  std::vector<std::string_view> texts;
  for (const Evidence& each : fault.evidence) {
    witnesses.push_back(WitnessName(each.witness));
    if (std::ranges::find(texts, each.text) == texts.end()) texts.push_back(each.text);
  }
  return fmt::format("{}, {} by {}: {}. HINT: {}", RowOf(fault.fault_class).title,
                     fault.confirmed ? "confirmed" : "suspected", fmt::join(witnesses, ", "),
                     fmt::join(texts, "; "), RowOf(fault.fault_class).hint);
}

}  // namespace metal::disk
