#include "agent/node/terms/lease.h"

#include <algorithm>
#include <utility>

#include "agent/base/status.h"

namespace metal::node {

bool GuardsNothing(const TermRecord& record, uint64_t armed_term, const ServerBehindLease& server) {
  using P = observe::PostgresState;
  // A first lease of this order may just be given: the page is armed before that is stored.
  if (record.MayRunAsPrimary()) return armed_term != record.term;
  const observe::PostgresSection& seen = server.seen;
  if (server.running == 0) return seen.state == P::kStopped || seen.state == P::kNoDataDirectory;
  return seen.state == P::kRunning && seen.role_observed == observe::Role::kStandby &&
         seen.pid == server.running && server.running != server.promoted;
}

Lease::Lease(const std::string& page_path, StartGuard start_guard, base::Clock& clock)
    : clock_(clock), start_guard_(std::move(start_guard)) {
  auto page = pg::LeasePage::Open(page_path);
  if (page.ok()) {
    page_ = *std::move(page);
  } else {
    page_error_ = page.status();
  }
}

absl::Status Lease::NoPage() const { return base::Annotate(page_error_, "lease"); }

// Whoever gave up the call, or whose process was frozen in it, may have another primary by now.
absl::Status Lease::CheckInTime(const TermRecord& record, base::MonotonicTime arrived) const {
  const base::MonotonicTime now = clock_.SinceBoot();
  if (now < pg::LeaseTimesOf(arrived, record.lease.ttl).ordered_stop) return absl::OkStatus();
  return base::Error(absl::StatusCode::kUnavailable,
                     "a lease of {} from when the call reached this node is over already: that was "
                     "{} ago. HINT: call again; a longer ttl leaves more time",
                     absl::FormatDuration(record.lease.ttl), absl::FormatDuration(now - arrived));
}

absl::Status Lease::Grant(const TermRecord& record, base::MonotonicTime arrived) {
  if (page_ == nullptr) return NoPage();
  const uint64_t term = record.lease.term;
  if (armed() && page_->term() == term) {
    METAL_RETURN_IF_ERROR(Renew(record, arrived));
    return EnsureGuard();
  }
  {
    base::MutexLock lock(mutex_);
    METAL_RETURN_IF_ERROR(CheckInTime(record, arrived));
    // The guard may have fired since somebody looked whether the lease is over.
    if (!page_->Arm(term, pg::LeaseTimesOf(arrived, record.lease.ttl))) {
      return LeaseExpired(record);
    }
    counted_ = arrived;
  }
  const absl::Status guarded = EnsureGuard();
  if (!guarded.ok()) Disarm();
  return guarded;
}

absl::Status Lease::Renew(const TermRecord& record, base::MonotonicTime arrived) {
  if (page_ == nullptr) return NoPage();
  const uint64_t term = record.lease.term;
  base::MutexLock lock(mutex_);
  if (Over(term)) return LeaseExpired(record);
  if (arrived < counted_) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(CheckInTime(record, arrived));
  if (!page_->Extend(term, pg::LeaseTimesOf(arrived, record.lease.ttl))) {
    return LeaseExpired(record);
  }
  counted_ = arrived;
  return absl::OkStatus();
}

bool Lease::Over(uint64_t term) const {
  if (term <= over_term_) return true;
  const bool over = page_ == nullptr || page_->term() != term || !page_->armed() ||
                    clock_.SinceBoot() >= page_->times().ordered_stop;
  if (over) over_term_ = std::max(over_term_.load(), term);
  return over;
}

std::optional<absl::Duration> Lease::UntilStop() const {
  if (!armed()) return std::nullopt;
  return page_->times().ordered_stop - clock_.SinceBoot();
}

absl::Duration Lease::Remaining() const {
  if (!armed()) return absl::ZeroDuration();
  return std::max(page_->times().deadline - clock_.SinceBoot(), absl::ZeroDuration());
}

bool Lease::armed() const { return page_ != nullptr && page_->armed(); }
uint64_t Lease::term() const { return page_ == nullptr ? 0 : page_->term(); }
bool Lease::guard_fired() const { return page_ != nullptr && page_->fired(); }
bool Lease::guarded() const { return page_ != nullptr && page_->Guarded(); }

absl::Status Lease::EnsureGuard() {
  if (!armed() || !start_guard_) return absl::OkStatus();
  return start_guard_(*page_);
}

void Lease::Disarm() {
  if (page_ != nullptr) page_->Disarm();
}

std::optional<base::MonotonicTime> Lease::KillTime() const {
  if (page_ == nullptr) return std::nullopt;
  const base::MonotonicTime kill = page_->kill_at();
  if (kill == base::MonotonicTime()) return std::nullopt;
  return kill;
}

void Lease::DisarmAt(base::MonotonicTime kill) {
  if (page_ != nullptr) page_->DisarmAt(kill);
}

}  // namespace metal::node
