#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/duration.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/term_header.h"
#include "tools/metalctl/terminal.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

// "db-2:5432", "[::1]:5432".
std::string Place(const std::string& host, int port) {
  const bool bare_ipv6 = !host.starts_with('/') && host.find(':') != std::string::npos;
  return bare_ipv6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::string Clients(int64_t clients, int64_t waiting) {
  return fmt::format("{} {} ({} waiting)", clients, clients == 1 ? "client" : "clients", waiting);
}

}  // namespace

std::string GateLine(const v1::GateStatus& gate, const google::protobuf::Timestamp& now,
                     bool colors) {
  const std::string clients = Clients(gate.clients(), gate.waiting_clients());
  const std::string place = Place(gate.host(), gate.port());
  switch (gate.state()) {
    case v1::GATE_STATE_OPEN:
      return fmt::format("{} to {}, {}", Paint("open", Tone::kGood, colors), place, clients);
    case v1::GATE_STATE_HELD: {
      std::string line =
          fmt::format("{} by {} in term {}, for {} more, then to {}, {}",
                      Paint("held", Tone::kCaution, colors), gate.orchestrator_id(), gate.term(),
                      FormatAge(now, gate.held_until_time()), place, clients);
      if (gate.transactions() > 0)
        line += fmt::format(", {} transactions still run", gate.transactions());
      return line;
    }
    case v1::GATE_STATE_DOWN: {
      std::string line = fmt::format("{}: {}", Paint("down", Tone::kBad, colors), gate.reason());
      if (gate.has_held_until_time()) line += fmt::format("; held by {}", gate.orchestrator_id());
      return line;
    }
    default:
      return "off";
  }
}

std::string ReadOnlyDoorLine(const v1::ReadOnlyDoorStatus& door, bool colors) {
  switch (door.state()) {
    case v1::READ_ONLY_DOOR_STATE_OPEN:
      return fmt::format("{} to the local standby, {}", Paint("open", Tone::kGood, colors),
                         Clients(door.clients(), door.waiting_clients()));
    case v1::READ_ONLY_DOOR_STATE_CLOSED:
      return fmt::format("{}: {}", Paint("closed", Tone::kCaution, colors), door.reason());
    default:
      return fmt::format("{}: {}", Paint("down", Tone::kBad, colors), door.reason());
  }
}

int HoldTraffic(const Client& client, const HoldOptions& options) {
  v1::HoldTrafficRequest request;
  SetHeader(options.term, request.mutable_header());
  if (options.deadline) *request.mutable_deadline() = DurationProto(*options.deadline);
  *request.mutable_drain_timeout() = DurationProto(options.term.timeout);
  request.set_keep_undrained(options.keep_undrained);
  grpc::ClientContext context;
  client.Prepare(context, options.term.timeout);
  v1::HoldTrafficResponse response;
  if (auto status = client.replication->HoldTraffic(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  fmt::print("held in {}, until {}; it led to {}\n", FormatDuration(response.took()),
             FormatTime(response.held_until_time()), Place(response.host(), response.port()));
  if (response.transactions() > 0)
    fmt::print("{} transactions still run behind the door\n", response.transactions());
  PrintNext(fmt::format("metalctl gate release --term {} HOST opens it", options.term.term));
  return kExitOk;
}

int ReleaseTraffic(const Client& client, const ReleaseOptions& options) {
  v1::ReleaseTrafficRequest request;
  SetHeader(options.term, request.mutable_header());
  request.set_host(options.host);
  request.set_port(options.port);
  *request.mutable_timeout() = DurationProto(options.term.timeout);
  grpc::ClientContext context;
  client.Prepare(context, options.term.timeout);
  v1::ReleaseTrafficResponse response;
  if (auto status = client.replication->ReleaseTraffic(&context, request, &response);
      !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("open to {} in {}{}\n", Place(options.host, options.port),
               FormatDuration(response.took()), response.was_held() ? "" : "; it was not held");
  }
  return kExitOk;
}

int ShowGate(const Client& client) {
  v1::GetStatusRequest request;
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetStatusResponse response;
  if (auto status = client.host->GetStatus(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  const auto& gate = response.status().gate();
  if (client.json()) {
    Client::PrintJson(gate);
    return kExitOk;
  }
  FactList facts;
  facts.Add("gate", GateLine(gate, response.status().capture_time(), OutputOptions().colors));
  facts.Add("listens", gate.listen());
  if (gate.pid() != 0) {
    facts.Add("pgbouncer", fmt::format("pid {}, {} restarts, {} server connections", gate.pid(),
                                       gate.restarts(), gate.server_connections()));
  }
  if (gate.term() != 0)
    facts.Add("last order", fmt::format("term {} of {}", gate.term(), gate.orchestrator_id()));
  if (gate.has_read_only()) {
    facts.Add("readers", ReadOnlyDoorLine(gate.read_only(), OutputOptions().colors));
    facts.Add("listens", gate.read_only().listen());
  }
  fmt::print("{}", facts.ToString());
  return kExitOk;
}

}  // namespace metal::ctl
