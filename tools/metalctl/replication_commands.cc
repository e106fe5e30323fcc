#include "fmt/format.h"
#include "fmt/ranges.h"
#include "tools/metalctl/address.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/duration.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/run_operation.h"
#include "tools/metalctl/term_header.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

template <typename Request, typename Response>
int ControlReplay(const Client& client,
                  grpc::Status (v1::ReplicationService::Stub::*call)(grpc::ClientContext*,
                                                                     const Request&, Response*),
                  const char* done) {
  Request request;
  request.set_request_id(NewRequestId());
  grpc::ClientContext context;
  client.Prepare(context, absl::Seconds(30));
  Response response;
  if (auto status = (client.replication.get()->*call)(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("{}\n", done);
  }
  return kExitOk;
}

void AddList(FactList& facts, const std::string& name,
             const google::protobuf::RepeatedPtrField<std::string>& words) {
  if (!words.empty()) facts.Add(name, fmt::format("{}", fmt::join(words, " ")));
}

}  // namespace

int Demote(const Client& client, const DemoteOptions& options) {
  v1::DemoteRequest request;
  SetHeader(options.term, request.mutable_header());
  request.set_prepare(options.prepare);
  *request.mutable_shutdown_timeout() = DurationProto(options.term.timeout);
  return RunOperation(
      client, *client.replication, &v1::ReplicationService::Stub::Demote, request, options.follow,
      [&options](const v1::Operation& operation) {
        PrintFacts(operation);
        if (options.prepare) return;
        const auto end = operation.result().find("shutdown_lsn");
        PrintNext(fmt::format("metalctl wait-lsn {} --mode flushed on the next primary",
                              end != operation.result().end() ? end->second : "LSN"));
      });
}

int UndoDemote(const Client& client, const TermOptions& options) {
  v1::UndoDemoteRequest request;
  SetHeader(options, request.mutable_header());
  *request.mutable_timeout() = DurationProto(options.timeout);
  grpc::ClientContext context;
  client.Prepare(context, options.timeout);
  v1::UndoDemoteResponse response;
  if (auto status = client.replication->UndoDemote(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("primary again in term {}: timeline {}, {}\n", options.term, response.timeline(),
               FormatLsn(response.lsn()));
  }
  return kExitOk;
}

int FollowPrimary(const Client& client, const FollowPrimaryOptions& options) {
  v1::FollowPrimaryRequest request;
  SetHeader(options.term, request.mutable_header());
  int port = 0;
  if (!ParseAddress(options.primary, request.mutable_host(), &port)) {
    return client.FailUsage(fmt::format(
        "'{}' is no address. HINT: HOST:PORT of the primary's PostgreSQL", options.primary));
  }
  request.set_port(port);
  request.set_slot(options.slot);
  request.set_without_slot(options.without_slot);
  grpc::ClientContext context;
  client.Prepare(context, options.term.timeout);
  v1::FollowPrimaryResponse response;
  if (auto status = client.replication->FollowPrimary(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  fmt::print("follows {}\n", response.source());
  if (!response.checked()) {
    fmt::print("not checked: {}\n", response.unchecked_reason());
  }
  return kExitOk;
}

int SetSynchronous(const Client& client, const SynchronousOptions& options) {
  v1::SetSynchronousStandbysRequest request;
  SetHeader(options.term, request.mutable_header());
  request.mutable_standbys()->Assign(options.standbys.begin(), options.standbys.end());
  request.set_count(options.standbys.empty() ? 0 : options.count);
  request.set_first(options.first);
  request.set_accept_data_loss(options.accept_data_loss);
  *request.mutable_timeout() = DurationProto(options.term.timeout);
  if (options.expected) {
    request.set_expected(*options.expected);
  } else {
    grpc::ClientContext context;
    client.Prepare(context);
    v1::GetStatusResponse status;
    if (auto got = client.host->GetStatus(&context, {}, &status); !got.ok()) {
      return client.Fail(got);
    }
    request.set_expected(status.status().postgres().synchronous_standby_names());
  }
  grpc::ClientContext context;
  client.Prepare(context, options.term.timeout);
  v1::SetSynchronousStandbysResponse response;
  if (auto status = client.replication->SetSynchronousStandbys(&context, request, &response);
      !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  const auto shown = [](const std::string& value) { return value.empty() ? "nobody" : value; };
  fmt::print("commits wait for {} (before: {}){}\n", shown(response.after()),
             shown(response.before()), response.acknowledged() ? "; they have all WAL" : "");
  return kExitOk;
}

int ReconcileSlots(const Client& client, const SlotsOptions& options) {
  v1::ReconcileReplicationSlotsRequest request;
  SetHeader(options.term, request.mutable_header());
  request.mutable_slots()->Assign(options.slots.begin(), options.slots.end());
  grpc::ClientContext context;
  client.Prepare(context, options.term.timeout);
  v1::ReconcileReplicationSlotsResponse response;
  if (auto status = client.replication->ReconcileReplicationSlots(&context, request, &response);
      !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  FactList facts;
  AddList(facts, "created", response.created());
  AddList(facts, "dropped", response.dropped());
  AddList(facts, "kept", response.kept());
  AddList(facts, "in use, not dropped", response.active());
  AddList(facts, "not the agent's", response.foreign());
  const std::string text = facts.ToString();
  fmt::print("{}", text.empty() ? "no slots\n" : text);
  return kExitOk;
}

int PauseReplay(const Client& client) {
  return ControlReplay(client, &v1::ReplicationService::Stub::PauseReplay, "replay rests");
}

int ResumeReplay(const Client& client) {
  return ControlReplay(client, &v1::ReplicationService::Stub::ResumeReplay, "replay goes on");
}

int StopReceiver(const Client& client) {
  return ControlReplay(client, &v1::ReplicationService::Stub::StopWalReceiver,
                       "the WAL receiver has ended");
}

int StartReceiver(const Client& client) {
  return ControlReplay(client, &v1::ReplicationService::Stub::StartWalReceiver,
                       "the WAL receiver may connect");
}

}  // namespace metal::ctl
