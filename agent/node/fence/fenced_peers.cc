#include "agent/node/fence/fenced_peers.h"

namespace metal::node {

void FencedPeers::Told(const std::vector<std::string>& nodes, base::MonotonicTime now) {
  base::MutexLock lock(mutex_);
  for (const std::string& node : nodes) told_[node] = now;
}

std::vector<std::string> FencedPeers::Visible(base::MonotonicTime now) {
  base::MutexLock lock(mutex_);
  std::erase_if(told_, [now](const auto& each) { return now - each.second > kFresh; });
  std::vector<std::string> nodes;
  for (const auto& [node, at] : told_) nodes.push_back(node);
  return nodes;
}

}  // namespace metal::node
