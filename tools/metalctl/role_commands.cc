#include <algorithm>

#include "agent/base/units.h"
#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/duration.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/term_header.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
int BeginTerm(const Client& client, const TermOptions& options) {
  v1::BeginTermRequest request;
  SetHeader(options, request.mutable_header());
  *request.mutable_timeout() = DurationProto(options.timeout);
  grpc::ClientContext context;
  client.Prepare(context, options.timeout);
  v1::BeginTermResponse response;
  if (auto status = client.replication->BeginTerm(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  FactList facts;
  facts.Add("term", std::to_string(options.term));
  facts.Add("timeline", std::to_string(response.position().timeline()));
  facts.Add("received", FormatLsn(response.position().received_lsn()));
  facts.Add("replayed", FormatLsn(response.position().replayed_lsn()));
  for (const auto& entry : response.position().history()) {
    facts.Add("history", fmt::format("timeline {} ended at {}", entry.timeline(),
                                     FormatLsn(entry.switch_lsn())));
  }
  if (response.was_primary()) facts.Add("note", "was the primary; restarted as a standby");
  if (response.postgres_down()) facts.Add("note", "PostgreSQL is down; only the term was stored");
  fmt::print("{}", facts.ToString());
  PrintNext(fmt::format("metalctl promote --term {} makes this node the primary", options.term));
  return kExitOk;
}

int Promote(const Client& client, const TermOptions& options) {
  v1::PromoteRequest request;
  SetHeader(options, request.mutable_header());
  *request.mutable_timeout() = DurationProto(options.timeout);
  if (options.lease_ttl > absl::ZeroDuration())
    *request.mutable_lease_ttl() = DurationProto(options.lease_ttl);
  grpc::ClientContext context;
  client.Prepare(context, options.timeout);
  v1::PromoteResponse response;
  if (auto status = client.replication->Promote(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("primary of term {}: timeline {}, {}\n", options.term, response.timeline(),
               FormatLsn(response.lsn()));
  }
  return kExitOk;
}

int Fence(const Client& client, const TermOptions& options) {
  v1::FenceRequest request;
  SetHeader(options, request.mutable_header());
  request.set_reason(options.reason);
  grpc::ClientContext context;
  client.Prepare(context, options.timeout);
  v1::FenceResponse response;
  if (auto status = client.replication->Fence(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("fenced{}\n",
               response.was_primary() ? "; was the primary, restarted as a standby" : "");
    PrintNext("metalctl unfence lifts it");
  }
  return kExitOk;
}

int Unfence(const Client& client, const TermOptions& options) {
  v1::UnfenceRequest request;
  SetHeader(options, request.mutable_header());
  grpc::ClientContext context;
  client.Prepare(context, options.timeout);
  v1::UnfenceResponse response;
  if (auto status = client.replication->Unfence(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("the fence is lifted; the node stays a standby\n");
  }
  return kExitOk;
}

int RenewLease(const Client& client, const TermOptions& options) {
  v1::RenewLeaseRequest request;
  SetHeader(options, request.mutable_header());
  *request.mutable_ttl() = DurationProto(options.lease_ttl);
  grpc::ClientContext context;
  // An answer that comes later says nothing any more.
  client.Prepare(context, std::min(options.timeout, options.lease_ttl));
  v1::RenewLeaseResponse response;
  if (auto status = client.replication->RenewLease(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("the lease of term {} lasts {}; renew it within {}\n", options.term,
               DurationText(options.lease_ttl), FormatDuration(response.renew_within()));
  }
  return kExitOk;
}

int WaitLsn(const Client& client, const WaitLsnOptions& options) {
  const auto lsn = base::Lsn::Parse(options.lsn);
  if (!lsn) {
    return client.FailUsage(
        fmt::format("'{}' is no LSN. HINT: for example 16/B374D848", options.lsn));
  }
  v1::WaitForLsnRequest request;
  request.set_lsn(lsn->value);
  request.set_timeline(options.timeline);
  request.set_mode(options.mode == "received"  ? v1::WAIT_FOR_LSN_MODE_RECEIVED
                   : options.mode == "flushed" ? v1::WAIT_FOR_LSN_MODE_FLUSHED
                                               : v1::WAIT_FOR_LSN_MODE_REPLAYED);
  *request.mutable_timeout() = DurationProto(options.timeout);
  grpc::ClientContext context;
  client.Prepare(context, options.timeout);
  v1::WaitForLsnResponse response;
  if (auto status = client.replication->WaitForLsn(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
  } else {
    fmt::print("{} on timeline {}\n", FormatLsn(response.lsn()), response.timeline());
  }
  return kExitOk;
}

}  // namespace metal::ctl
