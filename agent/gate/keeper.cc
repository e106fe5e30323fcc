#include "agent/gate/keeper.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/base/status.h"

namespace metal::gate {
namespace {

constexpr absl::Duration kLook = absl::Milliseconds(500);
constexpr absl::Duration kLookWhileDraining = absl::Milliseconds(10);

}  // namespace

Keeper::Keeper(std::string name, Door& door, DoorProcess& process, WishSource& source,
               base::Clock& clock)
    : name_(std::move(name)), door_(door), process_(process), source_(source), clock_(clock) {}

absl::Status Keeper::Start() {
  wake_ = base::UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return base::ErrnoStatus(errno, "make", "eventfd");
  thread_ = base::Thread(name_, [this] { Run(); });
  return absl::OkStatus();
}

void Keeper::Wake() {
  const uint64_t one = 1;
  // A full counter wakes as well.
  if (wake_.valid() && ::write(wake_.get(), &one, sizeof one) < 0) return;
}

void Keeper::Stop() {
  stopping_ = true;
  Wake();
  thread_.Join();
}

void Keeper::Run() {
  while (!stopping_) {
    const WishSource::Wish wish = source_.NextWish();
    door_.Step(wish.door, [&] { return stopping_ || source_.HasChanged(wish.order); });
    source_.Saw(wish.order, door_.view());
    if (!source_.HasChanged(wish.order)) Sleep();
  }
}

void Keeper::Sleep() {
  const DoorView& view = door_.view();
  absl::Duration wait = view.held && !view.drained ? kLookWhileDraining : kLook;
  wait = std::min({wait, source_.UntilChange(), door_.next_try() - clock_.Monotonic()});
  const auto ms = static_cast<int>(absl::ToInt64Milliseconds(
      absl::Ceil(std::max(wait, absl::ZeroDuration()), absl::Milliseconds(1))));
  // A process that has ended is known: its descriptor would not let anybody sleep.
  pollfd entries[] = {{wake_.get(), POLLIN, 0},
                      {process_.alive() ? process_.exit_fd() : -1, POLLIN, 0}};
  ::poll(entries, std::size(entries), ms);
  uint64_t ignored = 0;
  while (::read(wake_.get(), &ignored, sizeof ignored) > 0) {
  }
}

}  // namespace metal::gate
