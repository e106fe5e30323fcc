#include "tools/metalctl/shard/agent_shard.h"

#include "absl/time/clock.h"
#include "agent/base/thread.h"
#include "tools/metalctl/duration.h"

namespace metal::shard {
namespace {

namespace v1 = ::metal::agent::v1;

std::string WhyNoAnswer(const grpc::Status& status, absl::Duration patience) {
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return "no answer within " + ctl::DurationText(patience);
  }
  return ctl::ErrorOf(status).message;
}

}  // namespace

void RunAtOnce(std::vector<std::function<void()>> calls) {
  std::vector<base::Thread> threads;
  threads.reserve(calls.size());
  for (auto& call : calls) threads.emplace_back("shard-call", std::move(call));
  for (auto& thread : threads) thread.Join();
}

AgentShard::AgentShard(const ShardConfig& config, const ctl::ClientOptions& options)
    : config_(config) {
  for (const ShardNode& node : config.nodes) {
    ctl::ClientOptions own = options;
    own.endpoint = node.agent;
    if (!config.ca.empty()) {
      own.ca = config.ca;
      own.certificate = config.cert;
      own.key = config.key;
    }
    if (!node.server_name.empty()) own.server_name = node.server_name;
    clients_.push_back(std::make_unique<ctl::Client>(own));
  }
}

std::vector<NodeView> AgentShard::ReadStatuses(absl::Duration patience) {
  std::vector<NodeView> views(clients_.size());
  const auto deadline = absl::ToChronoTime(absl::Now() + patience);
  std::vector<std::function<void()>> calls;
  for (size_t i = 0; i < clients_.size(); ++i) {
    calls.emplace_back([this, i, deadline, patience, &views] {
      grpc::ClientContext context;
      context.set_deadline(deadline);
      v1::GetStatusResponse response;
      const grpc::Status status = clients_[i]->host->GetStatus(&context, {}, &response);
      views[i] = status.ok() ? ViewOf(config_.nodes[i].id, response.status())
                             : UnreachableView(config_.nodes[i].id, WhyNoAnswer(status, patience));
    });
  }
  RunAtOnce(std::move(calls));
  return views;
}

}  // namespace metal::shard
