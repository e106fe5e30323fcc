#include "tools/metalctl/shard/agent_calls.h"

#include "absl/strings/numbers.h"
#include "agent/base/status.h"
#include "tools/metalctl/duration.h"

namespace metal::shard {
namespace {

namespace v1 = ::metal::agent::v1;
using Facts = std::map<std::string, std::string>;

constexpr absl::Duration kShort = absl::Seconds(10);
constexpr absl::Duration kPromotion = absl::Seconds(60);
// Less than a door holds traffic; the checkpoint before has left little to write.
constexpr absl::Duration kShutdown = absl::Seconds(20);
constexpr absl::Duration kCheckpoint = absl::Minutes(10);
constexpr absl::Duration kFollow = absl::Seconds(30);
constexpr absl::Duration kStart = absl::Minutes(10);
constexpr absl::Duration kRewind = absl::Hours(1);
constexpr absl::Duration kClone = absl::Hours(24 * 7);
constexpr absl::Duration kDrain = absl::Seconds(5);
// For the answer to come after the agent's own time has passed.
constexpr absl::Duration kMargin = absl::Seconds(1);
// For a server that was just told to start, and for its agent to have seen that it runs.
constexpr absl::Duration kSettled = absl::Seconds(20);
constexpr absl::Duration kBusyPoll = absl::Milliseconds(20);
constexpr absl::Duration kOperationPoll = absl::Milliseconds(5);

absl::Status StatusOf(const ctl::Error& error, absl::StatusCode code) {
  const std::string text =
      error.hint.empty() ? error.message : error.message + " HINT: " + error.hint;
  absl::Status status(code, text);
  if (error.reason.empty()) return status;
  return base::WithReason(std::move(status), {.reason = error.reason, .metadata = error.metadata});
}

// The agent cannot tell yet what its server is: it was just started or stopped.
bool IsUnsettled(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  if (!reason || reason->reason != "ROLE_TRANSITION") return false;
  const auto state = reason->metadata.find("state");
  return state != reason->metadata.end() && state->second == "unsettled";
}

void SetHeader(const TermHolder& holder, v1::TermHeader* header) {
  header->set_term(holder.term);
  header->set_orchestrator_id(holder.orchestrator);
  header->set_request_id(ctl::NewRequestId());
}

WalPosition PositionOf(const v1::WalPosition& position) {
  WalPosition out;
  out.timeline = position.timeline();
  out.received = {position.received_lsn()};
  for (const auto& each : position.history()) {
    out.history.push_back({each.timeline(), {each.switch_lsn()}});
  }
  return out;
}

bool IsFinal(const v1::Operation& operation) {
  return operation.state() != v1::OPERATION_STATE_PENDING &&
         operation.state() != v1::OPERATION_STATE_RUNNING;
}

absl::StatusOr<WalPoint> PointIn(const Facts& facts) {
  const auto lsn = facts.find("shutdown_lsn");
  const auto timeline = facts.find("timeline");
  WalPoint point;
  const auto parsed = lsn == facts.end() ? std::nullopt : base::Lsn::Parse(lsn->second);
  if (!parsed || timeline == facts.end() || !absl::SimpleAtoi(timeline->second, &point.timeline)) {
    return base::Error(absl::StatusCode::kUnknown,
                       "it does not say where its WAL ended. HINT: metalctl events on the node");
  }
  point.lsn = *parsed;
  return point;
}

}  // namespace

void AgentCalls::Abandon() {
  const base::MutexLock lock(mutex_);
  abandoned_ = true;
  for (grpc::ClientContext* each : current_) each->TryCancel();
}

void AgentCalls::Arm() {
  const base::MutexLock lock(mutex_);
  abandoned_ = false;
}

grpc::Status AgentCalls::CallOnce(base::MonotonicTime deadline,
                                  const std::function<grpc::Status(grpc::ClientContext*)>& call) {
  grpc::ClientContext context;
  // gRPC turns it into a time of its own, which a step of the clock does not move.
  context.set_deadline(absl::ToChronoTime(clock_.Now() + (deadline - clock_.Monotonic())));
  {
    const base::MutexLock lock(mutex_);
    if (abandoned_) return {grpc::StatusCode::CANCELLED, "not waited for"};
    current_.insert(&context);
  }
  grpc::Status status = call(&context);
  const base::MutexLock lock(mutex_);
  current_.erase(&context);
  return status;
}

absl::Status AgentCalls::Call(absl::Duration patience,
                              const std::function<grpc::Status(grpc::ClientContext*)>& call) {
  const base::MonotonicTime deadline = clock_.Monotonic() + patience + kMargin;
  while (true) {
    const grpc::Status status = CallOnce(deadline, call);
    if (status.ok()) return absl::OkStatus();
    const ctl::Error error = ctl::ErrorOf(status);
    const bool busy = error.reason == "ACTION_IN_PROGRESS";
    if (!busy || clock_.Monotonic() + kBusyPoll >= deadline) {
      if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED && error.reason.empty() &&
          error.hint.empty()) {
        return absl::DeadlineExceededError("no answer within " + ctl::DurationText(patience));
      }
      return StatusOf(error, static_cast<absl::StatusCode>(status.error_code()));
    }
    clock_.Sleep(kBusyPoll);
  }
}

absl::StatusOr<NodeView> AgentCalls::GetStatus(absl::Duration patience) {
  v1::GetStatusResponse response;
  METAL_RETURN_IF_ERROR(Call(patience - kMargin, [&](grpc::ClientContext* context) {
    return client_.host->GetStatus(context, {}, &response);
  }));
  return ViewOf(id_, response.status());
}

v1::TellPeersRequest PeersOf(const std::string& id, const std::vector<NodeView>& views) {
  v1::TellPeersRequest request;
  for (const NodeView& view : views) {
    if (!view.answered || view.id == id) continue;
    if (view.fenced_by_disk()) request.add_fenced_node_ids(view.node_id);
    for (const DiskExcess& each : view.disk_excess) {
      v1::PeerDisk* disk = request.add_disks();
      disk->set_node_id(view.node_id);
      disk->set_role(each.role);
      disk->set_median_excess(each.median);
      disk->set_p99_excess(each.p99);
    }
  }
  return request;
}

absl::Status AgentCalls::TellPeers(const std::vector<NodeView>& views, absl::Duration patience) {
  const v1::TellPeersRequest request = PeersOf(id_, views);
  if (request.disks().empty() && request.fenced_node_ids().empty()) return absl::OkStatus();
  v1::TellPeersResponse response;
  return Call(patience - kMargin, [&](grpc::ClientContext* context) {
    return client_.storage->TellPeers(context, request, &response);
  });
}

absl::StatusOr<TermAnswer> AgentCalls::BeginTerm(const TermHolder& holder,
                                                 absl::Duration patience) {
  v1::BeginTermRequest request;
  SetHeader(holder, request.mutable_header());
  *request.mutable_timeout() = ctl::DurationProto(patience);
  v1::BeginTermResponse response;
  METAL_RETURN_IF_ERROR(Call(patience, [&](grpc::ClientContext* context) {
    return client_.replication->BeginTerm(context, request, &response);
  }));
  TermAnswer answer{.position = PositionOf(response.position()),
                    .was_primary = response.was_primary(),
                    .postgres_down = response.postgres_down()};
  for (const auto& each : response.term_history()) {
    answer.position.terms.push_back(
        {each.term(), each.timeline(), {each.start_lsn()}, each.node_id()});
  }
  for (const auto& each : response.durability()) {
    answer.position.durability.push_back(
        {each.copies(), {each.members().begin(), each.members().end()}});
  }
  return answer;
}

absl::StatusOr<WalPoint> AgentCalls::Promote(const TermHolder& holder) {
  v1::PromoteRequest request;
  SetHeader(holder, request.mutable_header());
  *request.mutable_timeout() = ctl::DurationProto(kPromotion);
  v1::PromoteResponse response;
  METAL_RETURN_IF_ERROR(Call(kPromotion, [&](grpc::ClientContext* context) {
    return client_.replication->Promote(context, request, &response);
  }));
  return WalPoint{response.timeline(), {response.lsn()}};
}

absl::StatusOr<Facts> AgentCalls::Follow(const v1::Operation& started, absl::Duration patience,
                                         const std::function<bool(const v1::Operation&)>& ready) {
  const base::MonotonicTime deadline = clock_.Monotonic() + patience;
  v1::Operation operation = started;
  v1::GetOperationRequest request;
  request.set_name(started.name());
  while (!ready(operation) && !IsFinal(operation)) {
    if (clock_.Monotonic() >= deadline) {
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "{} has not ended within {}. HINT: metalctl op show {}", started.kind(),
                         ctl::DurationText(patience), started.name());
    }
    clock_.Sleep(kOperationPoll);
    v1::GetOperationResponse response;
    METAL_RETURN_IF_ERROR(Call(kShort, [&](grpc::ClientContext* context) {
      return client_.operations->GetOperation(context, request, &response);
    }));
    operation = response.operation();
  }
  if (IsFinal(operation) && operation.state() != v1::OPERATION_STATE_SUCCEEDED &&
      !ready(operation)) {
    return StatusOf(ctl::ErrorOf(operation.error()),
                    static_cast<absl::StatusCode>(operation.error().code()));
  }
  return Facts(operation.result().begin(), operation.result().end());
}

absl::StatusOr<Facts> AgentCalls::RunDemote(const TermHolder& holder, bool prepare) {
  v1::DemoteRequest request;
  SetHeader(holder, request.mutable_header());
  request.set_prepare(prepare);
  *request.mutable_shutdown_timeout() = ctl::DurationProto(kShutdown);
  *request.mutable_checkpoint_timeout() =
      ctl::DurationProto(prepare ? kCheckpoint : absl::ZeroDuration());
  v1::DemoteResponse response;
  METAL_RETURN_IF_ERROR(Call(kShort, [&](grpc::ClientContext* context) {
    return client_.replication->Demote(context, request, &response);
  }));
  // Where WAL ends is known before the operation has ended: the server then starts as a standby.
  return Follow(
      response.operation(), prepare ? kCheckpoint : kShutdown + kMargin,
      [](const v1::Operation& operation) { return operation.result().contains("shutdown_lsn"); });
}

absl::Status AgentCalls::PrepareDemote(const TermHolder& holder) {
  return RunDemote(holder, true).status();
}

absl::StatusOr<WalPoint> AgentCalls::Demote(const TermHolder& holder) {
  METAL_ASSIGN_OR_RETURN(const Facts facts, RunDemote(holder, false));
  return PointIn(facts);
}

absl::Status AgentCalls::UndoDemote(const TermHolder& holder) {
  v1::UndoDemoteRequest request;
  SetHeader(holder, request.mutable_header());
  *request.mutable_timeout() = ctl::DurationProto(kPromotion);
  const base::MonotonicTime end = clock_.Monotonic() + kSettled;
  while (true) {
    const absl::Status undone = Call(kPromotion, [&](grpc::ClientContext* context) {
      v1::UndoDemoteResponse response;
      return client_.replication->UndoDemote(context, request, &response);
    });
    // A demotion has ended before its server runs again as a standby.
    if (!IsUnsettled(undone) || clock_.Monotonic() >= end) return undone;
    clock_.Sleep(kBusyPoll);
  }
}

absl::Status AgentCalls::FollowPrimary(const TermHolder& holder, const HostPort& source,
                                       FollowBy by) {
  v1::FollowPrimaryRequest request;
  SetHeader(holder, request.mutable_header());
  request.set_host(source.host);
  request.set_port(source.port);
  request.set_without_slot(by == FollowBy::kNoSlot);
  return Call(kFollow, [&](grpc::ClientContext* context) {
    v1::FollowPrimaryResponse response;
    return client_.replication->FollowPrimary(context, request, &response);
  });
}

absl::Status AgentCalls::WaitForLsn(const WalPoint& point, absl::Duration patience) {
  v1::WaitForLsnRequest request;
  request.set_lsn(point.lsn.value);
  request.set_timeline(point.timeline);
  request.set_mode(v1::WAIT_FOR_LSN_MODE_FLUSHED);
  *request.mutable_timeout() = ctl::DurationProto(patience);
  return Call(patience, [&](grpc::ClientContext* context) {
    v1::WaitForLsnResponse response;
    return client_.replication->WaitForLsn(context, request, &response);
  });
}

absl::StatusOr<WalPoint> AgentCalls::EndOfWal() {
  v1::WaitForLsnRequest request;
  request.set_lsn(1);  // is there for certain: the answer comes at once, with all that is
  request.set_mode(v1::WAIT_FOR_LSN_MODE_FLUSHED);
  *request.mutable_timeout() = ctl::DurationProto(kShort);
  v1::WaitForLsnResponse response;
  METAL_RETURN_IF_ERROR(Call(kShort, [&](grpc::ClientContext* context) {
    return client_.replication->WaitForLsn(context, request, &response);
  }));
  return WalPoint{response.timeline(), {response.lsn()}};
}

absl::Status AgentCalls::SetSynchronousStandbys(const TermHolder& holder,
                                                const SynchronousChange& change) {
  v1::SetSynchronousStandbysRequest request;
  SetHeader(holder, request.mutable_header());
  for (const std::string& each : change.standbys) request.add_standbys(each);
  request.set_count(change.policy.count);
  request.set_first(change.policy.method == SyncPolicy::Method::kFirst);
  request.set_expected(change.expected);
  request.set_accept_data_loss(change.accept_data_loss);
  request.set_reason(change.reason);
  *request.mutable_timeout() = ctl::DurationProto(change.patience);
  return Call(change.patience + kShort, [&](grpc::ClientContext* context) {
    v1::SetSynchronousStandbysResponse response;
    return client_.replication->SetSynchronousStandbys(context, request, &response);
  });
}

absl::Status AgentCalls::ReconcileSlots(const TermHolder& holder,
                                        const std::vector<std::string>& slots) {
  v1::ReconcileReplicationSlotsRequest request;
  SetHeader(holder, request.mutable_header());
  for (const std::string& each : slots) request.add_slots(each);
  return Call(kShort, [&](grpc::ClientContext* context) {
    v1::ReconcileReplicationSlotsResponse response;
    return client_.replication->ReconcileReplicationSlots(context, request, &response);
  });
}

absl::Status AgentCalls::StartPostgres() {
  v1::StartPostgresRequest request;
  request.set_request_id(ctl::NewRequestId());
  v1::StartPostgresResponse response;
  METAL_RETURN_IF_ERROR(Call(kShort, [&](grpc::ClientContext* context) {
    return client_.postgres->StartPostgres(context, request, &response);
  }));
  return Follow(response.operation(), kStart, [](const v1::Operation&) { return false; }).status();
}

absl::Status AgentCalls::HoldTraffic(const TermHolder& holder) {
  v1::HoldTrafficRequest request;
  SetHeader(holder, request.mutable_header());
  *request.mutable_drain_timeout() = ctl::DurationProto(kDrain);
  return Call(kDrain + kShort, [&](grpc::ClientContext* context) {
    v1::HoldTrafficResponse response;
    return client_.replication->HoldTraffic(context, request, &response);
  });
}

absl::Status AgentCalls::ReleaseTraffic(const TermHolder& holder, const HostPort& primary) {
  v1::ReleaseTrafficRequest request;
  SetHeader(holder, request.mutable_header());
  request.set_host(primary.host);
  request.set_port(primary.port);
  return Call(kShort, [&](grpc::ClientContext* context) {
    v1::ReleaseTrafficResponse response;
    return client_.replication->ReleaseTraffic(context, request, &response);
  });
}

absl::Status AgentCalls::InitDataDirectory(const InitOptions& options) {
  v1::InitDataDirectoryRequest request;
  request.set_request_id(ctl::NewRequestId());
  request.set_superuser_password(options.password);
  for (const auto& [name, value] : options.settings) (*request.mutable_settings())[name] = value;
  v1::InitDataDirectoryResponse response;
  METAL_RETURN_IF_ERROR(Call(kShort, [&](grpc::ClientContext* context) {
    return client_.postgres->InitDataDirectory(context, request, &response);
  }));
  return Follow(response.operation(), kStart, [](const v1::Operation&) { return false; }).status();
}

absl::Status AgentCalls::Clone(const TermHolder& holder, const CloneSource& source) {
  v1::CloneRequest request;
  SetHeader(holder, request.mutable_header());
  request.set_source(source.transfer.ToString());
  request.set_primary_host(source.primary.host);
  request.set_primary_port(source.primary.port);
  request.set_replace(source.replace);
  request.set_bytes_per_second_max(source.bytes_per_second_max);
  v1::CloneResponse response;
  METAL_RETURN_IF_ERROR(Call(kShort, [&](grpc::ClientContext* context) {
    return client_.replication->Clone(context, request, &response);
  }));
  return Follow(response.operation(), kClone, [](const v1::Operation&) { return false; }).status();
}

absl::Status AgentCalls::Unfence(const TermHolder& holder) {
  v1::UnfenceRequest request;
  SetHeader(holder, request.mutable_header());
  return Call(kShort, [&](grpc::ClientContext* context) {
    v1::UnfenceResponse response;
    return client_.replication->Unfence(context, request, &response);
  });
}

absl::Status AgentCalls::Rewind(const TermHolder& holder, const HostPort& primary) {
  return RunRewind(holder, primary, false);
}

absl::Status AgentCalls::TryRewind(const TermHolder& holder, const HostPort& primary) {
  return RunRewind(holder, primary, true);
}

absl::Status AgentCalls::RunRewind(const TermHolder& holder, const HostPort& primary,
                                   bool dry_run) {
  v1::RewindRequest request;
  SetHeader(holder, request.mutable_header());
  request.set_source_host(primary.host);
  request.set_source_port(primary.port);
  request.set_dry_run(dry_run);
  v1::RewindResponse response;
  METAL_RETURN_IF_ERROR(Call(kShort, [&](grpc::ClientContext* context) {
    return client_.replication->Rewind(context, request, &response);
  }));
  return Follow(response.operation(), dry_run ? kFollow : kRewind,
                [](const v1::Operation&) { return false; })
      .status();
}

}  // namespace metal::shard
