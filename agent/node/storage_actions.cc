// Node's verbs for storage, and what this build and host can do.
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/disk/probe_run.h"
#include "agent/node/node.h"
#include "agent/version.h"

namespace metal::node {

namespace {

constexpr int kReadsDefault = 1000, kReadsMax = 100000;
constexpr int kWritesDefault = 200, kWritesMax = 10000;
constexpr size_t kLongestReason = 500;
constexpr absl::Duration kProbeTimeout = absl::Minutes(10);

std::string Microseconds(absl::Duration duration) {
  return fmt::format("{:.1f}", absl::ToDoubleMicroseconds(duration));
}

void PutSummary(OperationResult& result, const std::string& prefix,
                const observe::LatencySummary& summary) {
  if (summary.count == 0) return;
  result.values[prefix + "_p50_us"] = Microseconds(summary.p50);
  result.values[prefix + "_p99_us"] = Microseconds(summary.p99);
  result.values[prefix + "_p999_us"] = Microseconds(summary.p999);
  result.values[prefix + "_max_us"] = Microseconds(summary.max);
}

}  // namespace

void Node::TellPeers(std::vector<disk::PeerExcess> peers, std::vector<std::string> fenced) {
  std::erase_if(peers, [this](const auto& each) { return each.node == parts_.config.node_id; });
  parts_.disks.SetPeers(peers);
  std::erase(fenced, parts_.config.node_id);
  fenced_peers_.Told(fenced, parts_.clock.Monotonic());
}

absl::StatusOr<std::vector<observe::Fault>> Node::AcknowledgeFault(
    const disk::AcknowledgeRequest& request) {
  if (request.fault_class.empty()) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "no fault_class. HINT: metalctl status names the faults");
  }
  if (request.reason.size() > kLongestReason) {
    return base::Error(absl::StatusCode::kInvalidArgument, "reason has {} bytes. HINT: at most {}",
                       request.reason.size(), kLongestReason);
  }
  return parts_.disks.Acknowledge(request);
}

absl::StatusOr<Operation> Node::RunStorageProbe(const RequestContext& context,
                                                const StorageProbeRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  if (request.reads < 0 || request.reads > kReadsMax) {
    return base::Error(absl::StatusCode::kInvalidArgument, "reads is {}. HINT: 0 to {}",
                       request.reads, kReadsMax);
  }
  if (request.writes < 0 || request.writes > kWritesMax) {
    return base::Error(absl::StatusCode::kInvalidArgument, "writes is {}. HINT: 0 to {}",
                       request.writes, kWritesMax);
  }
  disk::StorageProbeOptions options;
  options.role = request.role.empty() ? "data" : request.role;
  options.reads = static_cast<uint32_t>(request.reads == 0 ? kReadsDefault : request.reads);
  options.writes = static_cast<uint32_t>(request.writes == 0 ? kWritesDefault : request.writes);
  options.timeout = kProbeTimeout;
  METAL_RETURN_IF_ERROR(parts_.disks.FindProber(options.role).status());
  OperationSpec spec = Spec(context, "RunStorageProbe", options.role, OperationLane::kReader);
  spec.parameters = {{"reads", fmt::format("{}", options.reads)},
                     {"writes", fmt::format("{}", options.writes)}};
  return parts_.operations.Start(
      std::move(spec),
      [this, options](OperationContext& operation) -> absl::StatusOr<OperationResult> {
        METAL_ASSIGN_OR_RETURN(const disk::StorageProbeResult probe,
                               disk::RunStorageProbe(parts_.disks, options, operation.progress));
        OperationResult result;
        PutSummary(result, "read", probe.read);
        PutSummary(result, "write", probe.write);
        result.values["reads"] = fmt::format("{}", probe.read.count);
        result.values["writes"] = fmt::format("{}", probe.write.count);
        result.values["errors"] = fmt::format("{}", probe.read_errors + probe.write_errors);
        result.values["path"] = probe.path;
        result.values["device"] = probe.device;
        result.values["seconds"] = fmt::format("{:.3f}", absl::ToDoubleSeconds(probe.elapsed));
        if (!probe.last_error.empty()) result.values["last_error"] = probe.last_error;
        return result;
      });
}

absl::StatusOr<disk::DriveReport> Node::GetDriveReport(const std::string& device) {
  std::map<std::string, disk::DriveReport> reports = parts_.disks.DriveReports();
  const auto found = reports.find(device);
  if (found != reports.end()) return std::move(found->second);
  return base::Error(absl::StatusCode::kNotFound,
                     "no disk '{}' under this node's directories. HINT: metalctl disk list",
                     device);
}

Capabilities Node::GetCapabilities() {
  Capabilities capabilities;
  capabilities.agent_version = kAgentVersion;
  const auto version = parts_.install.Version();
  if (version.ok()) capabilities.postgres_version = version->text;
  for (const uring::EngineKind kind :
       {uring::EngineKind::kIoUring, uring::EngineKind::kThreads, uring::EngineKind::kPread}) {
    const auto choice = uring::MakeEngine(kind, 4);
    if (choice.ok()) capabilities.io_engines.emplace_back(choice->engine->name());
  }
  for (const stream::CodecKind kind :
       {stream::CodecKind::kZstd, stream::CodecKind::kLz4, stream::CodecKind::kNone}) {
    capabilities.codecs.emplace_back(stream::CodecName(kind));
  }
  const auto status = parts_.board.Get();
  capabilities.io_engine = status->node.io_engine;
  capabilities.io_engine_reason = status->node.io_engine_reason;
  auto& features = capabilities.features;
  features["probe"] = parts_.config.probe_enabled ? "supported" : "disk.probe_enabled is false";
  features["backup"] =
      parts_.config.repository_path.empty() ? "repository.path is not set" : "supported";
  if (!base::PathExists("/run/systemd/system")) {
    features["systemd_scope"] = "systemd does not run here; PostgreSQL has its own session";
  } else {
    const std::string missing =
        parts_.helper == nullptr ? "there is no privileged helper" : parts_.helper->WhyMissing();
    features["systemd_scope"] = missing.empty() ? "supported" : missing;
  }
  features["smart"] = "no disk was observed yet";
  for (const observe::DiskSection& disk : status->disks) {
    features["smart"] = disk.smart.supported ? "supported" : disk.smart.unsupported_reason;
    if (disk.smart.supported) break;
  }
  return capabilities;
}

}  // namespace metal::node
