#include "tools/metalctl/reconnect.h"

#include <poll.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "fmt/format.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/watch.h"

namespace metal::ctl {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(200);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

// An agent that shuts down ends its streams with OK or CANCELLED, a lost connection with
// UNAVAILABLE.
bool MayComeBack(const grpc::Status& status) {
  return status.ok() || status.error_code() == grpc::StatusCode::UNAVAILABLE ||
         status.error_code() == grpc::StatusCode::CANCELLED;
}

}  // namespace

void Pause(absl::Duration duration) {
  constexpr absl::Duration kSlice = absl::Milliseconds(50);
  const absl::Time end = absl::Now() + duration;
  for (absl::Time now = absl::Now(); now < end && !InterruptGuard::Pressed(); now = absl::Now()) {
    const absl::Duration left = std::min(end - now, kSlice);
    poll(nullptr, 0, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
  }
}

Reconnect::Reconnect(const Client& client, bool worked, absl::Duration patience)
    : client_(client),
      patience_(patience),
      worked_(worked),
      pause_(kFirstPause),
      last_answer_(absl::Now()) {}

void Reconnect::Works() {
  if (told_) client_.Note("the agent answers again");
  told_ = false;
  worked_ = true;
  pause_ = kFirstPause;
  last_answer_ = absl::Now();
}

bool Reconnect::ShouldRetry(const grpc::Status& status) {
  if (!worked_ || !MayComeBack(status) || absl::Now() - last_answer_ > patience_) return false;
  if (!told_) {
    client_.Note(fmt::format("the agent at {} is gone; trying again for {}",
                             client_.options().endpoint,
                             FormatSeconds(absl::ToDoubleSeconds(patience_))));
  }
  told_ = true;
  Pause(pause_);
  pause_ = std::min(pause_ * 2, kLongestPause);
  return true;
}

void Reconnect::Silent(absl::Duration silence) {
  if (told_) return;
  told_ = true;
  client_.Note(fmt::format("no word from the agent at {} for {}: it hangs, or the network does",
                           client_.options().endpoint,
                           FormatSeconds(absl::ToDoubleSeconds(silence))));
}

}  // namespace metal::ctl
