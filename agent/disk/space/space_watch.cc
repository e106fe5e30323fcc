#include "agent/disk/space/space_watch.h"

#include <algorithm>
#include <charconv>

#include "fmt/format.h"

namespace metal::disk {
namespace {

constexpr size_t kMost = 64;  // file systems that are remembered

}  // namespace

Findings SpaceWatch::Observe(const std::vector<RoomView>& views, absl::Time now) {
  struct Seen {
    base::FilesystemRoom room;
    SpacePlace place;
  };
  std::map<uint64_t, Seen> seen;
  for (const RoomView& view : views) {
    Seen& each = seen[view.room.id];
    each.room = view.room;
    each.place.device = view.device;
    each.place.mount_point = view.mount_point;
    each.place.roles.insert(view.role);
  }
  Findings all;
  for (const auto& [id, each] : seen) {
    const auto [judge, is_new] = judges_.try_emplace(id, read_only_at_);
    if (is_new && restored_.contains(id)) judge->second.Restore(restored_.extract(id).mapped());
    Findings found = judge->second.Observe(each.room, each.place, now);
    std::ranges::move(found.events, std::back_inserter(all.events));
    std::ranges::move(found.evidence, std::back_inserter(all.evidence));
  }
  if (judges_.size() > kMost) {
    std::erase_if(judges_, [&](const auto& each) { return !seen.contains(each.first); });
  }
  return all;
}

std::optional<observe::SpaceSection> SpaceWatch::SectionOf(uint64_t filesystem) const {
  const auto found = judges_.find(filesystem);
  return found == judges_.end() ? std::nullopt : std::optional(found->second.section());
}

bool SpaceWatch::TakeChanged() {
  bool changed = false;
  for (auto& [id, judge] : judges_) changed = judge.TakeChanged() || changed;
  return changed;
}

std::string SpaceWatch::Encode() const {
  std::string text;
  for (const auto& [id, judge] : judges_) text += fmt::format("{:x} {}\n", id, judge.Encode());
  for (const auto& [id, line] : restored_) text += fmt::format("{:x} {}\n", id, line);
  return text;
}

void SpaceWatch::Restore(std::string_view text) {
  constexpr int kHex = 16;
  while (!text.empty() && restored_.size() < kMost) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const size_t space = line.find(' ');
    uint64_t id = 0;
    if (space == std::string_view::npos) continue;
    const auto [end, error] = std::from_chars(line.data(), line.data() + space, id, kHex);
    if (error != std::errc() || end != line.data() + space) continue;
    restored_[id] = line.substr(space + 1);
  }
}

}  // namespace metal::disk
