#include "tests/unit/disk/slow_replay.h"

#include <array>
#include <vector>

namespace metal::testing {

using disk::LatencyExcess;
using disk::SlowDetector;
using disk::SlowState;

SlowReplay ReplaySlowCase(const SlowCase& slow_case, const disk::SlowLimits& limits) {
  constexpr int kMembers = SlowCasePlayer::kMembers;
  SlowReplay replay;
  SlowCasePlayer player(slow_case);
  std::vector<SlowDetector> detectors(slow_case.with_peers ? kMembers : 1, SlowDetector(limits));
  std::array<std::optional<LatencyExcess>, kMembers> told;
  std::array<bool, kMembers> was_slow{};
  SlowCasePlayer::Second second;
  for (int now = 0; player.Next(second); ++now) {
    std::array<std::optional<LatencyExcess>, kMembers> telling;
    for (size_t i = 0; i < detectors.size(); ++i) {
      std::array<LatencyExcess, kMembers> peers;
      size_t known = 0;
      for (size_t p = 0; p < detectors.size(); ++p) {
        if (p != i && told[p]) peers[known++] = *told[p];
      }
      const auto& verdict = detectors[i].Observe(second.members[i], {peers.data(), known});
      telling[i] = detectors[i].excess();
      const bool slow = verdict.state == SlowState::kSlow;
      if (slow && !was_slow[i]) {
        if (i != 0 || !second.slow) {
          ++replay.false_alarms;
        } else if (!replay.alert_after) {
          replay.alert_after = now - player.begin();
        }
      }
      was_slow[i] = slow;
      if (i == 0 && second.slow) replay.factor = verdict.factor;
      if (i == 0 && now >= player.end() && replay.alert_after && !replay.clear_after &&
          verdict.state == SlowState::kNormal) {
        replay.clear_after = now - player.end();
      }
    }
    told = telling;
    replay.drive_hours += static_cast<double>(detectors.size()) / 3600;
  }
  return replay;
}

}  // namespace metal::testing
