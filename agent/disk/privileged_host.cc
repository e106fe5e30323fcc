// The privileged helper's requests for the host: what a fence needs beside the term store. Declared
// in privileged_wire.h.
#include <algorithm>
#include <cstring>

#include "agent/disk/privileged_wire.h"
#include "agent/host/server_group.h"
#include "agent/host/traffic_cut.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

bool IsPort(int32_t port) { return port >= 1 && port <= 65535; }

HelperReply Destroy(const HelperRequest& request) {
  std::set<uint32_t> spared;
  for (const int32_t pid : request.spared) {
    if (pid > 1 && IsServer(pid)) spared.merge(host::SocketsOf(pid));
  }
  const auto destroyed = host::DestroyConnections(request.port, spared);
  HelperReply reply = ReplyOf(destroyed.status());
  if (!destroyed.ok()) return reply;
  reply = MakeReply(HelperResult::kOk, destroyed->first_error);
  const int32_t count = destroyed->count;
  std::memcpy(reply.data.data(), &count, sizeof count);
  reply.length = sizeof count;
  return reply;
}

HelperReply Kill(const HelperRequest& request) {
  const auto root = host::GroupRoot();
  if (!root.ok()) return ReplyOf(root.status());
  return ReplyOf(host::KillServerGroup(*root, ScopeName(request.port, request.pid)));
}

HelperReply Feed(const HelperRequest& request, const std::string& device_root,
                 host::Watchdog& watchdog) {
  const std::string name(request.device, strnlen(request.device, sizeof request.device));
  if (!host::IsWatchdogName(name)) {
    return MakeReply(HelperResult::kRejected, "not the name of a watchdog");
  }
  return ReplyOf(watchdog.Feed(fmt::format("{}/{}", device_root, name),
                               absl::Seconds(request.seconds_to_reset)));
}

}  // namespace

bool IsForHost(HelperRequestKind kind) {
  return kind >= HelperRequestKind::kRefuseConnections && kind <= HelperRequestKind::kStopWatchdog;
}

HelperReply AnswerHostRequest(const HelperRequest& request, const std::string& device_root,
                              host::Watchdog* watchdog) {
  const bool of_watchdog = request.kind == HelperRequestKind::kFeedWatchdog ||
                           request.kind == HelperRequestKind::kStopWatchdog;
  if (of_watchdog && watchdog == nullptr) {
    return MakeReply(HelperResult::kUnsupported, "no watchdog is fed here");
  }
  if (!of_watchdog && !IsPort(request.port)) {
    return MakeReply(HelperResult::kRejected, fmt::format("{} is not a port", request.port));
  }
  switch (request.kind) {
    case HelperRequestKind::kRefuseConnections:
      return ReplyOf(host::RefuseConnections(request.port));
    case HelperRequestKind::kAllowConnections:
      return ReplyOf(host::AllowConnections(request.port));
    case HelperRequestKind::kDestroyConnections:
      return Destroy(request);
    case HelperRequestKind::kKillServer:
      return Kill(request);
    case HelperRequestKind::kFeedWatchdog:
      return Feed(request, device_root, *watchdog);
    case HelperRequestKind::kStopWatchdog:
      return ReplyOf(watchdog->Stop());
    default:
      return MakeReply(HelperResult::kRejected, "unknown request");
  }
}

}  // namespace metal::disk
