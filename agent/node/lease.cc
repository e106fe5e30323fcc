#include "agent/node/lease.h"

#include <algorithm>
#include <utility>

#include "agent/base/status.h"

namespace metal::node {

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

absl::Status Lease::Grant(uint64_t term, absl::Duration ttl) {
  if (page_ == nullptr) return NoPage();
  page_->Arm(term, pg::LeaseTimesOf(clock_.SinceBoot(), ttl));
  const absl::Status guarded = EnsureGuard();
  if (!guarded.ok()) Disarm();
  return guarded;
}

absl::Status Lease::Renew(const TermRecord& record, absl::Duration ttl) {
  if (page_ == nullptr) return NoPage();
  // Taken before the look: a process that is frozen in between gives the lease no time.
  const base::MonotonicTime now = clock_.SinceBoot();
  if (Over(record.lease.term) || !page_->Extend(record.lease.term, pg::LeaseTimesOf(now, ttl))) {
    return LeaseExpired(record);
  }
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

}  // namespace metal::node
