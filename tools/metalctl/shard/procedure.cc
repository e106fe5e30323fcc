#include "tools/metalctl/shard/procedure.h"

#include <algorithm>

#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "fmt/ranges.h"
#include "tools/metalctl/shard/findings.h"

namespace metal::shard {
namespace {

constexpr absl::Duration kStatusPatience = absl::Seconds(2);
constexpr absl::Duration kGrace = absl::Milliseconds(200);
constexpr absl::Duration kRestartPatience = absl::Seconds(3);
constexpr absl::Duration kPoll = absl::Milliseconds(50);

// Times that a look is repeated since the nodes have moved on.
constexpr int kOvertaken = 2;

// Inconsistencies with which nothing may be changed: these are not the nodes that they should be.
constexpr std::string_view kWrongNodes[] = {"wrong_node", "wrong_shard", "different_systems",
                                            "different_versions"};

}  // namespace

Procedure::Procedure(const ShardConfig& config, ShardCalls& calls, StepLog& log,
                     const std::string& run)
    : config_(config), calls_(calls), log_(log), orchestrator_(config.orchestrator + ":" + run) {}

void Procedure::Finish(std::string_view name, const std::string& nodes, base::MonotonicTime begin,
                       const absl::StatusOr<std::string>& result) {
  StepRecord step{.name = std::string(name),
                  .nodes = nodes,
                  .took = calls_.clock().Monotonic() - begin,
                  .error = result.ok() ? "" : std::string(result.status().message()),
                  .result = result.ok() ? *result : ""};
  Record(std::move(step));
}

void Procedure::Record(StepRecord step) {
  log_.End(step);
  const base::MutexLock lock(steps_mutex_);
  steps_.push_back(std::move(step));
}

absl::Status Procedure::Step(std::string_view name, const std::string& nodes,
                             const StepBody& body) {
  log_.Begin(name, nodes);
  const base::MonotonicTime begin = calls_.clock().Monotonic();
  const absl::StatusOr<std::string> result = body();
  Finish(name, nodes, begin, result);
  if (result.ok()) return absl::OkStatus();
  return base::Annotate(result.status(),
                        nodes.empty() ? std::string(name) : fmt::format("{} on {}", name, nodes));
}

std::vector<absl::Status> Procedure::OnEach(std::string_view name, const std::vector<size_t>& nodes,
                                            const NodeBody& body, const Enough& enough) {
  if (nodes.empty()) return {};
  log_.Begin(name, fmt::format("{}", fmt::join(IdsOf(nodes), ", ")));
  const base::MonotonicTime begin = calls_.clock().Monotonic();
  std::vector<absl::StatusOr<std::string>> results(nodes.size(), "");
  std::vector<base::MonotonicTime> ends(nodes.size(), begin);
  std::vector<NodeCall> calls;
  for (size_t i = 0; i < nodes.size(); ++i) {
    calls.push_back({nodes[i], [this, &body, &results, &ends, &nodes, i] {
                       results[i] = body(nodes[i]);
                       ends[i] = calls_.clock().Monotonic();
                     }});
  }
  calls_.AtOnce(calls, enough);
  std::vector<absl::Status> statuses;
  for (size_t i = 0; i < nodes.size(); ++i) {
    StepRecord step{.name = std::string(name),
                    .nodes = NameOf(nodes[i]),
                    .took = ends[i] - begin,
                    .error = results[i].ok() ? "" : std::string(results[i].status().message()),
                    .result = results[i].ok() ? *results[i] : ""};
    Record(std::move(step));
    statuses.push_back(
        results[i].ok()
            ? absl::OkStatus()
            : base::Annotate(results[i].status(), fmt::format("{} on {}", name, NameOf(nodes[i]))));
  }
  return statuses;
}

// Clients wait meanwhile: the doors are opened by the very thread that saw the promotion end, and
// nobody is waited for to follow.
absl::Status Procedure::Lead(size_t leader, const std::vector<size_t>& followers,
                             const TermHolder& holder) {
  absl::Status promoted;
  std::vector<NodeCall> calls = {
      {leader, [&] {
         promoted = Step("promote", NameOf(leader), [&]() -> absl::StatusOr<std::string> {
           METAL_ASSIGN_OR_RETURN(const WalPoint point, calls_.node(leader).Promote(holder));
           return fmt::format("timeline {}", point.timeline);
         });
         if (promoted.ok()) ReleaseTraffic(leader, holder, Doors());
       }}};
  for (const size_t each : followers) {
    calls.push_back(
        {each, [&, each] {
           // One that fails is looked after when the shard is settled.
           Step("follow", NameOf(each), [&] { return Follow(each, leader, holder); }).IgnoreError();
         }});
  }
  // The first decides; the rest get a moment more, and go on by themselves.
  calls_.AtOnce(calls,
                {.test = [](const std::vector<bool>& ended) { return ended[0]; }, .grace = kGrace});
  return promoted;
}

void Procedure::ReadViews() {
  views_.assign(config_.nodes.size(), {});
  std::vector<NodeCall> calls;
  for (size_t i = 0; i < views_.size(); ++i) {
    calls.push_back({i, [this, i] {
                       auto view = calls_.node(i).GetStatus(kStatusPatience);
                       views_[i] = view.ok() ? *std::move(view)
                                             : UnreachableView(
                                                   NameOf(i), std::string(view.status().message()));
                     }});
  }
  calls_.AtOnce(calls, {});
  LeaveOutStrangers(views_);
}

absl::Status Procedure::Look() {
  return Step("look", "", [&]() -> absl::StatusOr<std::string> {
    ReadViews();
    for (const Finding& each : Analyse(config_, views_)) {
      if (std::find(std::begin(kWrongNodes), std::end(kWrongNodes), each.kind->name) ==
          std::end(kWrongNodes)) {
        continue;
      }
      return base::Error(absl::StatusCode::kFailedPrecondition, "{} {}: {}. HINT: {}",
                         each.kind->name, each.node, each.message, each.kind->hint);
    }
    const auto primary = FindPrimary(views_);
    std::vector<std::string> silent;
    for (const NodeView& view : views_) {
      if (!view.answered) silent.push_back(view.id);
    }
    if (silent.size() == views_.size()) {
      return base::Error(absl::StatusCode::kUnavailable,
                         "no agent answers: {}. HINT: are these the "
                         "right addresses in {}?",
                         views_[0].no_answer, config_.file);
    }
    return fmt::format(
        "{}, term {}{}", primary ? "primary " + NameOf(*primary) : "no primary",
        HighestTerm(views_),
        silent.empty() ? "" : fmt::format(", no answer from {}", fmt::join(silent, ", ")));
  });
}

std::vector<size_t> Procedure::Others(size_t node) const {
  std::vector<size_t> others;
  for (size_t i = 0; i < config_.nodes.size(); ++i) {
    if (i != node) others.push_back(i);
  }
  return others;
}

std::vector<std::string> Procedure::IdsOf(const std::vector<size_t>& nodes) const {
  std::vector<std::string> ids;
  for (const size_t node : nodes) ids.push_back(NameOf(node));
  return ids;
}

TermHolder Procedure::NextTerm() const {
  uint64_t highest = HighestTerm(views_);
  for (const NodeView& view : views_) {
    if (view.answered) highest = std::max(highest, view.last_led_term);
  }
  return {highest + 1, orchestrator_};
}

bool Procedure::IsOvertaken(const WalPosition& position, TermHolder* next) {
  uint64_t last = 0;
  for (const TermStart& each : position.terms) last = std::max(last, each.term);
  if (last < next->term) return false;
  next->term = last + 1;
  log_.Note(fmt::format("the database notes a primary of term {}: going on with term {}", last,
                        next->term));
  return true;
}

bool Procedure::PrimaryIsStarting() const {
  return std::any_of(views_.begin(), views_.end(), [&](const NodeView& view) {
    return view.answered && view.term == HighestTerm(views_) && !view.fenced &&
           view.wanted == NodeRole::kPrimary && view.role == NodeRole::kUnknown &&
           view.server != ServerState::kEmpty && view.server != ServerState::kStopped &&
           view.server != ServerState::kStuck;
  });
}

std::optional<size_t> Procedure::AwaitPrimary() {
  base::Clock& clock = calls_.clock();
  const base::MonotonicTime end = clock.Monotonic() + kRestartPatience;
  auto primary = FindPrimary(views_);
  while (!primary && PrimaryIsStarting() && clock.Monotonic() < end) {
    clock.Sleep(kPoll);
    ReadViews();
    primary = FindPrimary(views_);
  }
  return primary;
}

absl::Status Procedure::FinishPromotion(size_t node) {
  const TermHolder holder{views_[node].term, views_[node].orchestrator};
  const absl::Status promoted = Step("promote", NameOf(node), [&]() -> absl::StatusOr<std::string> {
    METAL_ASSIGN_OR_RETURN(const WalPoint point, calls_.node(node).Promote(holder));
    return fmt::format("timeline {} (ordered before)", point.timeline);
  });
  METAL_RETURN_IF_ERROR(promoted);
  return Settle(node, holder);
}

absl::Status Procedure::Recover() {
  // What another operator asked for last, before it died or gave up, may only now be taken up: then
  // what was seen is no longer so.
  for (int more = kOvertaken;; --more) {
    left_behind_.clear();
    const absl::Status recovered = RecoverOnce();
    const auto reason = base::GetReason(recovered);
    if (!reason || reason->reason != "STALE_TERM" || more == 0) return recovered;
    log_.Note("a newer term was begun meanwhile, looking again: " +
              std::string(recovered.message()));
  }
}

absl::Status Procedure::RecoverOnce() {
  METAL_RETURN_IF_ERROR(Look());
  if (const auto primary = AwaitPrimary()) {
    return Settle(*primary, {views_[*primary].term, views_[*primary].orchestrator});
  }
  if (const auto promoting = FindPromoting(config_, views_)) return FinishPromotion(*promoting);
  const bool has_data = std::any_of(views_.begin(), views_.end(), [](const NodeView& view) {
    return view.answered && view.server != ServerState::kEmpty;
  });
  if (!has_data) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "no node that answers has a data directory. HINT: metalctl shard init makes "
                       "a new shard");
  }
  return Elect({}, std::nullopt);
}

}  // namespace metal::shard
