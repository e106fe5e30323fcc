#include "agent/pg/heartbeat.h"

#include <algorithm>
#include <utility>

#include "agent/base/log.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr const char* kFault = "metal_schema";
constexpr absl::Duration kAfterFailure = absl::Seconds(30);
constexpr int kFailuresToReport = 3;  // a server that stops, or a busy disk, is no fault
// The monitor's rounds are not exactly as long as the interval.
constexpr absl::Duration kEarly = absl::Milliseconds(200);

}  // namespace

HeartbeatWriter::HeartbeatWriter(HeartbeatOptions options, SessionFactory connect,
                                 observe::StatusBoard& board, base::Clock& clock)
    : options_(std::move(options)), connect_(std::move(connect)), board_(board), clock_(clock) {}

HeartbeatWriter::~HeartbeatWriter() { Stop(); }

void HeartbeatWriter::Start() {
  thread_ = base::Thread("pg-heartbeat", [this] { Loop(); });
}

void HeartbeatWriter::Stop() {
  {
    base::MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.NotifyAll();
  thread_.Join();
}

void HeartbeatWriter::Nudge() {
  {
    base::MutexLock lock(mutex_);
    nudged_ = true;
  }
  wake_.NotifyAll();
}

void HeartbeatWriter::Loop() {
  while (true) {
    {
      base::MutexLock lock(mutex_);
      wake_.WaitFor(mutex_, absl::InfiniteDuration(),
                    [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_ || nudged_; });
      if (stop_) return;
      nudged_ = false;
    }
    RunOnce();
  }
}

void HeartbeatWriter::RunOnce() {
  const auto status = board_.Get();
  const std::optional<TermOrder> order = options_.order();
  if (!order || status->postgres.state != observe::PostgresState::kRunning ||
      status->postgres.role_observed != observe::Role::kPrimary) {
    // Somebody else writes now, or nobody: what was known of the table is not any more.
    session_.reset();
    written_term_ = 0;
    settled_.reset();
    next_.reset();
    if (std::exchange(failures_, 0) > 0) board_.ClearFault(kFault, "postgres");
    return;
  }
  const base::MonotonicTime now = clock_.Monotonic();
  if (next_ && now < *next_) return;
  const absl::Status outcome = Write(*order);
  Report(outcome);
  if (outcome.ok()) {
    next_ = now + (options_.interval - std::min(kEarly, options_.interval / 5));
  } else if (failures_ >= kFailuresToReport) {
    next_ = now + kAfterFailure;
  }
}

absl::Status HeartbeatWriter::Write(const TermOrder& order) {
  const bool beats = options_.interval > absl::ZeroDuration();
  if (!beats && written_term_ == order.term && RecordIsSettled()) return absl::OkStatus();
  if (!session_ || !session_->connected()) {
    METAL_ASSIGN_OR_RETURN(session_, connect_());
    written_term_ = 0;
    settled_.reset();
  }
  if (written_term_ != order.term) METAL_RETURN_IF_ERROR(Prepare(order));
  if (!RecordIsSettled()) METAL_RETURN_IF_ERROR(KeepDurability(order));
  if (beats) return WriteHeartbeat(*session_, order, options_.query_timeout);
  if (!RecordIsSettled()) return absl::OkStatus();
  session_.reset();  // of no more use
  return absl::OkStatus();
}

absl::Status HeartbeatWriter::Prepare(const TermOrder& order) {
  METAL_RETURN_IF_ERROR(EnsureMetalSchema(*session_, options_.query_timeout));
  METAL_RETURN_IF_ERROR(WriteTermHistory(*session_, order, options_.query_timeout));
  METAL_RETURN_IF_ERROR(PrepareHeartbeats(*session_, options_.query_timeout));
  written_term_ = order.term;
  return absl::OkStatus();
}

// The monitor has just looked at what is in force.
bool HeartbeatWriter::RecordIsSettled() const {
  return options_.turn == nullptr ||
         settled_ == std::pair(board_.Get()->postgres.synchronous_standby_names,
                               options_.turn->changes.load());
}

absl::Status HeartbeatWriter::KeepDurability(const TermOrder& order) {
  if (!options_.turn->mutex.TryLock()) return absl::OkStatus();
  const uint64_t changes = options_.turn->changes.load();
  const auto state = KeepRecord(*session_, {order.node_id, options_.cluster_id, order.term},
                                &record_since_, options_.query_timeout);
  options_.turn->mutex.Unlock();
  METAL_RETURN_IF_ERROR(state.status());
  settled_.reset();
  if (state->settled) settled_.emplace(state->in_force, changes);
  if (state->weaker && options_.found_weaker) options_.found_weaker(*state);
  return PrepareHeartbeats(*session_, options_.query_timeout);
}

void HeartbeatWriter::Report(const absl::Status& outcome) {
  if (outcome.ok()) {
    if (std::exchange(failures_, 0) > 0) board_.ClearFault(kFault, "postgres");
    return;
  }
  session_.reset();
  written_term_ = 0;
  const auto reason = base::GetReason(outcome);
  const bool foreign = reason && reason->reason == "METAL_SCHEMA_FOREIGN";
  failures_ = foreign ? kFailuresToReport : failures_ + 1;
  if (failures_ < kFailuresToReport) return;
  const std::string message(outcome.message());
  if (!board_.Get()->faults.contains(std::string(kFault) + "/postgres")) {
    base::LogWarning("event=metal_schema message=\"{}\"", message);
  }
  board_.RaiseFault({kFault, "postgres", observe::Severity::kWarning, message, clock_.Now()});
}

}  // namespace metal::pg
