// The planned change of the primary. What is slow and harmless comes first (the candidate is up to
// date, has its slots and policy, the old primary has written its checkpoint); from the demotion to
// the promotion clients wait, and nothing happens there that could have happened before.
#include <algorithm>

#include "agent/base/status.h"
#include "fmt/ranges.h"
#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/shard/procedure.h"

namespace metal::shard {
namespace {

constexpr absl::Duration kMarkerPatience = absl::Seconds(10);
// Clients wait meanwhile. A primary that shuts down sends its last WAL at once to who streams: what
// has not come within seconds was cut off, and to give the lead back takes less than to wait on.
constexpr absl::Duration kShutdownLsnPatience = absl::Seconds(5);
constexpr absl::Duration kBeginTermPatience = absl::Seconds(10);
constexpr absl::Duration kStatusPatience = absl::Seconds(5);
constexpr absl::Duration kPoll = absl::Milliseconds(50);

absl::Status NotFit(const std::string& node, const std::string& why) {
  return base::Error(absl::StatusCode::kFailedPrecondition,
                     "{} is not fit to lead: {}. HINT: metalctl shard status; nothing was changed",
                     node, why);
}

// True when the node itself refused: what was asked for did not happen and will not.
bool Refused(const absl::Status& status) {
  return base::GetReason(status).has_value() || absl::IsFailedPrecondition(status) ||
         absl::IsInvalidArgument(status) || absl::IsPermissionDenied(status);
}

}  // namespace

absl::Status Procedure::CheckCandidate(size_t primary, size_t candidate) const {
  const NodeView& view = views_[candidate];
  const std::string name = NameOf(candidate);
  if (!view.answered) return NotFit(name, "its agent does not answer: " + view.no_answer);
  if (view.fenced) return NotFit(name, "it is fenced: " + view.fence_reason);
  if (!view.is_standby()) {
    return NotFit(name,
                  fmt::format("it is no running standby but {}", ServerStateName(view.server)));
  }
  const HostPort sender{view.sender_host, view.sender_port};
  if (view.receiver_state != "streaming" || sender != config_.nodes[primary].postgres) {
    return NotFit(name, "it does not stream from " + NameOf(primary));
  }
  if (view.replay_paused) return NotFit(name, "its replay is paused");
  const int64_t behind = view.lag_bytes.value_or(0);
  if (behind > 0 && static_cast<uint64_t>(behind) > config_.max_lag_bytes) {
    return NotFit(
        name, fmt::format("it is {} bytes behind, max_lag is {}", behind, config_.max_lag_bytes));
  }
  // A receiver that hangs in a write does not know how far behind it is; the primary does.
  const uint64_t written = views_[primary].received.value;
  for (const Follower& each : views_[primary].followers) {
    if (each.name != name || each.flushed.value + config_.max_lag_bytes >= written) continue;
    return NotFit(name, fmt::format("it is {} bytes behind, max_lag is {}",
                                    written - each.flushed.value, config_.max_lag_bytes));
  }
  if (view.disk_is_sick()) return NotFit(name, "a disk of it is " + view.disk);
  if (view.is_condemned()) return NotFit(name, "its disk is sick: " + view.CondemnedFor());
  return absl::OkStatus();
}

absl::StatusOr<size_t> Procedure::ChooseCandidate(size_t primary,
                                                  const ChangeOptions& options) const {
  if (options.to) {
    METAL_RETURN_IF_ERROR(CheckCandidate(primary, *options.to));
    return *options.to;
  }
  std::optional<size_t> best;
  absl::Status why;
  for (const size_t node : Others(primary)) {
    const absl::Status fit = CheckCandidate(primary, node);
    if (!fit.ok()) {
      why = fit;
    } else if (!best || views_[node].received > views_[*best].received) {
      best = node;
    }
  }
  if (best) return *best;
  return why;
}

absl::Status Procedure::AwaitFollower(size_t primary, size_t candidate, base::Lsn lsn) {
  base::Clock& clock = calls_.clock();
  const base::MonotonicTime end = clock.Monotonic() + kMarkerPatience;
  do {
    METAL_ASSIGN_OR_RETURN(const NodeView view, calls_.node(primary).GetStatus(kStatusPatience));
    for (const Follower& each : view.followers) {
      const bool there = each.name == NameOf(candidate) && each.state == "streaming";
      if (there && each.flushed >= lsn) return absl::OkStatus();
    }
    clock.Sleep(kPoll);
  } while (clock.Monotonic() < end);
  return NotFit(NameOf(candidate),
                "it does not stream from " + NameOf(primary) + ", as the primary sees it");
}

absl::Status Procedure::Preflight(size_t primary, size_t candidate, const TermHolder& next,
                                  bool* prepared) {
  const absl::Status caught_up =
      Step("catch_up", NameOf(candidate), [&]() -> absl::StatusOr<std::string> {
        METAL_ASSIGN_OR_RETURN(const WalPoint marker, calls_.node(primary).EndOfWal());
        METAL_RETURN_IF_ERROR(calls_.node(candidate).WaitForLsn(marker, kMarkerPatience));
        METAL_RETURN_IF_ERROR(AwaitFollower(primary, candidate, marker.lsn));
        return "has " + marker.lsn.ToString();
      });
  METAL_RETURN_IF_ERROR(caught_up);
  const TermHolder now{views_[candidate].term, views_[candidate].orchestrator};
  if (config_.IsOurs(now.orchestrator)) *prepared = PrepareLeader(candidate, now).ok();
  return Step("checkpoint", NameOf(primary), [&]() -> absl::StatusOr<std::string> {
    METAL_RETURN_IF_ERROR(calls_.node(primary).PrepareDemote(next));
    return "written";
  });
}

absl::Status Procedure::HandOver(size_t primary, size_t candidate, const TermHolder& next,
                                 bool prepared) {
  WalPoint shutdown;
  const absl::Status demoted =
      Step("demote", NameOf(primary), [&]() -> absl::StatusOr<std::string> {
        METAL_ASSIGN_OR_RETURN(shutdown, calls_.node(primary).Demote(next));
        return fmt::format("shut down at {}", shutdown.lsn.ToString());
      });
  METAL_RETURN_IF_ERROR(demoted);
  KeepHolding(next);
  const absl::Status received =
      Step("receive", NameOf(candidate), [&]() -> absl::StatusOr<std::string> {
        METAL_RETURN_IF_ERROR(calls_.node(candidate).WaitForLsn(shutdown, kShutdownLsnPatience));
        return "has " + shutdown.lsn.ToString();
      });
  METAL_RETURN_IF_ERROR(received);
  const absl::Status begun =
      Step("begin_term", NameOf(candidate), [&]() -> absl::StatusOr<std::string> {
        METAL_ASSIGN_OR_RETURN(const TermAnswer answer,
                               calls_.node(candidate).BeginTerm(next, kBeginTermPatience));
        if (answer.position.received < shutdown.lsn) {
          return base::Error(absl::StatusCode::kFailedPrecondition, "it has WAL up to {} only",
                             answer.position.received.ToString());
        }
        return fmt::format("term {}", next.term);
      });
  METAL_RETURN_IF_ERROR(begun);
  return prepared ? absl::OkStatus() : PrepareLeader(candidate, next);
}

absl::Status Procedure::Undo(size_t primary, size_t candidate, const TermHolder& next,
                             absl::Status why) {
  log_.Note(fmt::format("undoing: {}", std::string(why.message())));
  const absl::Status undone =
      Step("undo_demote", NameOf(primary), [&]() -> absl::StatusOr<std::string> {
        METAL_RETURN_IF_ERROR(calls_.node(primary).UndoDemote(next));
        return fmt::format("{} leads again", NameOf(primary));
      });
  if (!undone.ok()) {
    return base::Error(
        why.code(),
        "{}; and the old primary could not be made to lead again: {}. HINT: metalctl "
        "shard recover",
        std::string(why.message()), std::string(undone.message()));
  }
  ReleaseTraffic(primary, next, Doors());
  if (const absl::Status settled = Settle(primary, next); !settled.ok()) {
    log_.Note("not all is as before: " + std::string(settled.message()));
  }
  return base::Annotate(why, fmt::format("{} leads, as before: {} was not promoted",
                                         NameOf(primary), NameOf(candidate)));
}

absl::Status Procedure::SwitchOver(size_t primary, size_t candidate) {
  const TermHolder next = NextTerm();
  bool prepared = false;
  METAL_RETURN_IF_ERROR(Preflight(primary, candidate, next, &prepared));
  // Under the term in force: whoever finds the doors held can open them without a new one.
  const NodeView& leading = views_[primary];
  const bool ours = config_.IsOurs(leading.orchestrator);
  METAL_RETURN_IF_ERROR(
      HoldTraffic(primary, ours ? TermHolder{leading.term, leading.orchestrator} : next));
  if (absl::Status handed = HandOver(primary, candidate, next, prepared); !handed.ok()) {
    return Undo(primary, candidate, next, std::move(handed));
  }
  KeepHolding(next);
  std::vector<size_t> others;
  for (const size_t node : Others(candidate)) {
    if (node != primary && views_[node].is_standby() && !views_[node].fenced)
      others.push_back(node);
  }
  const absl::Status promoted = Lead(candidate, others, next);
  if (promoted.ok()) return Settle(candidate, next);
  // Only when it is certain that no promotion was ordered may the old primary lead again.
  const auto view = calls_.node(candidate).GetStatus(kStatusPatience);
  const bool ordered =
      !Refused(promoted) || !view.ok() || view->wanted == NodeRole::kPrimary || view->is_primary();
  if (!ordered) return Undo(primary, candidate, next, promoted);
  return base::Error(
      promoted.code(),
      "{}; the promotion of {} may have been ordered and stays so. HINT: metalctl shard "
      "recover ends it; metalctl shard failover when {} is lost",
      std::string(promoted.message()), NameOf(candidate), NameOf(candidate));
}

absl::Status Procedure::Reparent(const ChangeOptions& options) {
  METAL_RETURN_IF_ERROR(Look());
  if (const auto promoting = FindPromoting(config_, views_))
    METAL_RETURN_IF_ERROR(FinishPromotion(*promoting));
  const auto primary = FindPrimary(views_);
  if (!primary) return Elect({options.to, false}, std::nullopt);
  if (options.to == primary) {
    log_.Note(fmt::format("{} is the primary already", NameOf(*primary)));
    return Settle(*primary, {views_[*primary].term, views_[*primary].orchestrator});
  }
  METAL_ASSIGN_OR_RETURN(const size_t candidate, ChooseCandidate(*primary, options));
  return SwitchOver(*primary, candidate);
}

}  // namespace metal::shard
