#include "agent/node/fence/flushed_standbys.h"

#include <algorithm>
#include <vector>

#include "absl/time/time.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::node {
namespace {

constexpr absl::Duration kFresh = absl::Seconds(5);

bool IsSynchronous(const observe::FollowerSection& follower) {
  return follower.sync_state == "sync" || follower.sync_state == "quorum";
}

}  // namespace

FlushedStandbys FlushedOnStandbys(const observe::FollowersSection& followers) {
  std::vector<observe::FollowerSection> standbys = followers.followers;
  // A backup's receiver writes no database.
  std::erase_if(standbys, [](const auto& each) { return !each.flush_lsn.valid(); });
  std::ranges::stable_sort(standbys, [](const auto& a, const auto& b) {
    if (IsSynchronous(a) != IsSynchronous(b)) return IsSynchronous(a);
    return b.flush_lsn < a.flush_lsn;
  });
  FlushedStandbys flushed;
  if (standbys.empty()) {
    flushed.text = "no standby was seen";
    return flushed;
  }
  flushed.lsn = standbys.front().flush_lsn;
  flushed.by = standbys.front().application_name;
  std::vector<std::string> each;
  for (const auto& standby : standbys) {
    each.push_back(fmt::format("{} ({}, {})", standby.flush_lsn.ToString(),
                               standby.application_name, standby.sync_state));
  }
  flushed.text = fmt::format("standbys had flushed {}", fmt::join(each, ", "));
  return flushed;
}

void FollowersMemory::Look(const observe::NodeStatus& status) {
  if (status.postgres.role_observed == observe::Role::kStandby) seen_ = {};
  if (!status.followers.followers.empty()) seen_ = status.followers;
}

FlushedStandbys FollowersMemory::Flushed(absl::Time now) const {
  FlushedStandbys flushed = FlushedOnStandbys(seen_);
  const absl::Duration age = now - seen_.time.captured_at;
  if (flushed.lsn.valid() && age > kFresh) {
    flushed.text += fmt::format(" ({:.0f} s before)", absl::ToDoubleSeconds(age));
  }
  return flushed;
}

}  // namespace metal::node
