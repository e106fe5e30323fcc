// Node's verb for cloning another node's data directory over this one's.
//
// What if the agent dies here? Before the sentinel is written the old directory is whole, and the
// server may be stopped. From the sentinel on the directory is no cluster any more; the operation
// begins anew when the agent comes back, and any later Clone or restore may clean it up. After the
// sentinel has gone the copy is complete: StartPostgres starts it.
#include <unistd.h>

#include <charconv>

#include "agent/backup/clone.h"
#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/base/throttle.h"
#include "agent/node/emit.h"
#include "agent/node/node.h"
#include "agent/node/steps/clone_steps.h"
#include "agent/node/tablespace_mapping.h"
#include "agent/pg/replication_source.h"

namespace metal::node {

namespace {

constexpr absl::Duration kStop = absl::Seconds(5);
constexpr absl::Duration kStopByForce = absl::Seconds(30);
constexpr absl::Duration kSlotPatience = absl::Seconds(30);
constexpr absl::Duration kStreaming = absl::Seconds(60);

std::map<std::string, std::string> ParametersOf(const CloneRequest& request) {
  std::map<std::string, std::string> parameters = {
      {"orchestrator_id", request.holder.orchestrator_id},
      {"source", request.source},
      {"primary_host", request.primary_host},
      {"primary_port", fmt::format("{}", request.primary_port)},
      {"replace", request.replace ? "true" : "false"},
      {"codec", request.codec},
      {"rate_limit", fmt::format("{}", request.rate_limit)}};
  for (const auto& [oid, path] : request.tablespace_mapping) {
    parameters["tablespace." + oid] = path;
  }
  return parameters;
}

template <typename Number>
void ReadNumber(const std::string& text, Number& number) {
  std::from_chars(text.data(), text.data() + text.size(), number);
}

CloneRequest RequestOf(const OperationSpec& spec) {
  CloneRequest request;
  request.holder.term = spec.term;
  for (const auto& [name, value] : spec.parameters) {
    if (name == "orchestrator_id") request.holder.orchestrator_id = value;
    if (name == "source") request.source = value;
    if (name == "primary_host") request.primary_host = value;
    if (name == "primary_port") ReadNumber(value, request.primary_port);
    if (name == "replace") request.replace = value == "true";
    if (name == "codec") request.codec = value;
    if (name == "rate_limit") ReadNumber(value, request.rate_limit);
    if (name.starts_with("tablespace.")) request.tablespace_mapping[name.substr(11)] = value;
  }
  return request;
}

absl::Status CheckCloneRequest(const CloneRequest& request) {
  METAL_RETURN_IF_ERROR(transfer::Address::Parse(request.source).status());
  if (request.primary_host.empty() || request.primary_port < 1 || request.primary_port > 65535) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "primary \"{}:{}\" is no address. HINT: host and port of the PostgreSQL "
                       "that the copy will follow",
                       request.primary_host, request.primary_port);
  }
  METAL_RETURN_IF_ERROR(base::Throttle::CheckRate(request.rate_limit));
  METAL_RETURN_IF_ERROR(stream::ParseCodec(request.codec).status());
  return ParseTablespaceMapping(request.tablespace_mapping).status();
}

OperationResult ResultOf(const backup::CloneReport& report, absl::Duration until_streaming) {
  const double seconds = absl::ToDoubleSeconds(report.elapsed);
  OperationResult result;
  result.values = {
      {"source_node", report.source_node},
      {"files", fmt::format("{}", report.files)},
      {"bytes", fmt::format("{}", report.bytes)},
      {"seconds", fmt::format("{:.3f}", seconds)},
      {"bytes_per_second",
       fmt::format("{:.0f}", seconds > 0 ? static_cast<double>(report.bytes) / seconds : 0)},
      {"reconnects", fmt::format("{}", report.reconnects)},
      {"start_lsn", report.start_lsn.ToString()},
      {"stop_lsn", report.stop_lsn.ToString()},
      {"timeline", fmt::format("{}", report.timeline)},
      {"io_engine", report.io_engine},
      {"finish_seconds", fmt::format("{:.3f}", absl::ToDoubleSeconds(report.finish))},
      {"streaming_after_seconds", fmt::format("{:.3f}", absl::ToDoubleSeconds(until_streaming))}};
  return result;
}

}  // namespace

absl::StatusOr<Operation> Node::Clone(const RequestContext& context, const CloneRequest& request) {
  METAL_ASSIGN_OR_RETURN(std::optional<Operation> earlier,
                         parts_.operations.FindByRequest(context));
  if (earlier) return *std::move(earlier);
  METAL_RETURN_IF_ERROR(CheckCloneRequest(request));
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kClone));
  OperationSpec spec = Spec(context, "Clone", parts_.config.pg_data_dir);
  spec.term = request.holder.term;
  spec.parameters = ParametersOf(request);
  return parts_.operations.Start(std::move(spec), [this, request](OperationContext& operation) {
    return RunClone(operation, request);
  });
}

absl::StatusOr<OperationBody> Node::ResumeClone(const Operation& operation) {
  const CloneRequest request = RequestOf(operation.spec);
  METAL_RETURN_IF_ERROR(CheckCloneRequest(request));
  return OperationBody(
      [this, request](OperationContext& context) -> absl::StatusOr<OperationResult> {
        auto result = RunClone(context, request);
        if (result.ok() || absl::IsCancelled(result.status())) return result;
        // Perhaps because the agent died after the last step: the directory is then complete.
        return base::WithReason(
            base::Annotate(result.status(), "the agent restarted while this ran, resume"),
            {.reason = "AGENT_RESTARTED", .metadata = {{"kind", context.spec.kind}}});
      });
}

absl::StatusOr<std::unique_ptr<pg::SqlSession>> Node::ConnectToPrimary(
    const pg::ReplicationSource& source, absl::Duration timeout) {
  pg::ConnectOptions options;
  options.socket_dir = source.host;
  options.port = source.port;
  options.user = source.user;
  options.passfile = source.passfile;
  options.ssl_mode = source.ssl_mode;
  options.connect_timeout = timeout;
  options.application_name = "metal-agent";
  auto session = pg::ConnectLibpq(options);
  if (session.ok()) return session;
  return base::Annotate(session.status(), "the primary to follow");
}

absl::StatusOr<OperationResult> Node::RunClone(OperationContext& context,
                                               const CloneRequest& request) {
  METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
  METAL_RETURN_IF_ERROR(Admit(RoleRequest::kClone));
  const base::AgentConfig& config = parts_.config;
  backup::CloneRequest domain;
  METAL_ASSIGN_OR_RETURN(domain.source, transfer::Address::Parse(request.source));
  METAL_ASSIGN_OR_RETURN(domain.tablespace_mapping,
                         ParseTablespaceMapping(request.tablespace_mapping));
  METAL_ASSIGN_OR_RETURN(const pg::PostgresVersion version, parts_.install.Version());
  domain.tls = {config.tls_certificate, config.tls_key, config.tls_client_ca};
  domain.node_id = config.node_id;
  domain.target_directory = config.pg_data_dir;
  domain.wal_directory = config.pg_wal_dir;
  domain.postgres_major = version.major();
  domain.replace = request.replace;
  domain.rate_limit = request.rate_limit;
  domain.codec = request.codec;
  domain.links = static_cast<size_t>(config.transfer_connections);
  backup::Clone clone(std::move(domain), BackupContext(context.progress));
  METAL_RETURN_IF_ERROR(clone.Look());
  FollowPrimaryRequest follow;
  follow.host = request.primary_host;
  follow.port = request.primary_port;
  METAL_ASSIGN_OR_RETURN(pg::ReplicationSource source, SourceOf(follow));
  source.application_name = config.node_id;  // what a rewind left open goes with the old directory
  METAL_ASSIGN_OR_RETURN(const auto primary, ConnectToPrimary(source));
  METAL_RETURN_IF_ERROR(CheckPrimary(*primary, clone.source()));
  METAL_RETURN_IF_ERROR(base::FaultPoint("node.before_clone"));

  const bool was_running = parts_.supervisor.postmaster() != nullptr;
  if (was_running) METAL_RETURN_IF_ERROR(StopForClone(context));
  const auto report = CopyFromSource(context, request, clone, *primary, source);
  if (!report.ok()) {
    clone.Abandon(report.status());
    RequestRefresh();
    if (!was_running || clone.emptied()) return report.status();
    // Nothing was removed: the old server goes on.
    const auto started = RunStart(context, StartPostgresRequest{});
    return started.ok() ? report.status()
                        : base::Annotate(report.status(),
                                         fmt::format("the server was stopped for the clone and "
                                                     "did not start again ({})",
                                                     std::string(started.status().message())));
  }
  const base::MonotonicTime complete = parts_.clock.Monotonic();
  ForgetRewind();
  if (parts_.data_lock) METAL_RETURN_IF_ERROR(parts_.data_lock->LockDirectory());
  METAL_RETURN_IF_ERROR(base::FaultPoint("node.before_clone_start"));
  const absl::Status streaming = StartClone(context);
  RequestRefresh();
  if (!streaming.ok()) {
    return base::Annotate(streaming, "the copy is complete, but");
  }
  const OperationResult result = ResultOf(*report, parts_.clock.Monotonic() - complete);
  Emit(parts_.events, observe::Severity::kInfo, "clone.completed", config.pg_data_dir,
       fmt::format("{} from {} in {} s, follows {}:{}", base::ByteCount{report->bytes}.ToString(),
                   report->source_node, result.values.at("seconds"), source.host, source.port),
       result.values);
  return result;
}

absl::Status Node::CheckPrimary(pg::SqlSession& session, const backup::CloneWelcome& source) {
  METAL_ASSIGN_OR_RETURN(
      const pg::SqlResult answer,
      session.Query("SELECT system_identifier FROM pg_control_system()", absl::Seconds(10)));
  const std::string there = answer.Text(0, "system_identifier");
  const std::string here = fmt::format("{}", source.system_identifier);
  if (there == here) return absl::OkStatus();
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "the primary to follow has system identifier {}, the source {} has {}. HINT: "
                  "give the primary of the source's shard",
                  there, source.node_id, here),
      {"WRONG_SYSTEM", {{"source", there}, {"here", here}}});
}

absl::Status Node::StopForClone(OperationContext& context) {
  pg::StopOptions stop;
  // What it would write at its end goes with its directory; one that is frozen is ended all the
  // same.
  stop.mode = pg::StopMode::kImmediate;
  stop.timeout = kStop;
  stop.escalate_to = pg::StopMode::kKill;
  stop.escalation_timeout = kStopByForce;
  return base::Annotate(parts_.supervisor.Stop(stop, &context.progress).status(),
                        "stop the server that is replaced");
}

// The slot is made once the old server no longer moves it, and before the source begins.
absl::StatusOr<backup::CloneReport> Node::CopyFromSource(OperationContext& context,
                                                         const CloneRequest& request,
                                                         backup::Clone& clone,
                                                         pg::SqlSession& primary,
                                                         const pg::ReplicationSource& source) {
  const auto cancelled = [&] { return context.progress.cancelled(); };
  context.progress.BeginPhase("reserving WAL on the primary");
  METAL_ASSIGN_OR_RETURN(const WalReservation wal,
                         ReserveWal(primary, parts_.clock, source.slot, kSlotPatience, cancelled));
  METAL_RETURN_IF_ERROR(base::FaultPoint("node.clone_reserved"));
  // A standby has to have seen the checkpoint that the slot begins at.
  METAL_RETURN_IF_ERROR(clone.Open(clone.source().in_recovery ? wal.current_lsn : base::Lsn()));
  if (clone.plan().start_lsn < wal.restart_lsn) {
    return base::Error(
        absl::StatusCode::kFailedPrecondition,
        "the source's backup starts at {}, slot {} of the primary keeps WAL from {}. "
        "HINT: clone again once the source has made a restartpoint, or clone from "
        "the primary",
        clone.plan().start_lsn.ToString(), source.slot, wal.restart_lsn.ToString());
  }
  const std::string& directory = parts_.config.pg_data_dir;
  absl::StatusOr<backup::CloneReport> report = absl::InternalError("not copied");
  const auto configure = [&]() -> absl::Status {
    METAL_RETURN_IF_ERROR(pg::InstallManagedSettings(directory, AgentSettingsOf(parts_.config)));
    pg::SettingPatch patch = pg::FollowSettings(source);
    patch["synchronous_standby_names"] = std::nullopt;
    return pg::PatchAgentPart(directory, patch);  // pg_hba.conf: before every start
  };
  const auto body = [&]() -> absl::Status {
    METAL_RETURN_IF_ERROR(parts_.terms.CheckHolder(request.holder));
    METAL_RETURN_IF_ERROR(parts_.terms.Follow(request.holder));  // no UndoDemote from here on
    METAL_RETURN_IF_ERROR(parts_.terms.DropPrimaryRole());
    report = clone.Copy(configure);
    if (report.ok() || clone.emptied()) ForgetTerms();
    return report.status();
  };
  // A probe file in the directory would make it one that is not empty.
  parts_.disks.StopProbing("data");
  METAL_RETURN_IF_ERROR(parts_.supervisor.WithServerStopped("clone", body));
  parts_.disks.NoteDrivesAnew();
  return report;
}

absl::Status Node::StartClone(OperationContext& context) {
  pg::StartOptions options;
  options.as_standby = true;
  options.progress = &context.progress;
  options.prepare = [this] { return InstallManagedFiles(); };
  METAL_RETURN_IF_ERROR(parts_.supervisor.Start(options).status());
  context.progress.BeginPhase("waiting for the stream");
  return AwaitStreaming(parts_.connect, parts_.clock, kStreaming,
                        [&] { return context.progress.cancelled(); });
}

}  // namespace metal::node
