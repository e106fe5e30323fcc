#include "agent/disk/space/space_level.h"

namespace metal::disk {
namespace {

constexpr double kHold = 2;  // points

}  // namespace

int SpaceLevel::Observe(double used_percent) {
  int now = 0;
  for (const int each : kSpaceLevels) {
    if (used_percent >= each - (each <= level_ ? kHold : 0)) now = each;
  }
  level_ = now;
  return level_;
}

}  // namespace metal::disk
