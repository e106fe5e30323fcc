#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/duration.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

std::string FullName(const std::string& name) {
  return name.find('/') == std::string::npos ? "operations/" + name : name;
}

std::string StateWord(v1::OperationState state) {
  return EnumWord(v1::OperationState_Name(state), "OPERATION_STATE_");
}

bool IsFinal(const v1::Operation& operation) { return operation.has_end_time(); }

double Elapsed(const v1::Operation& operation) {
  return static_cast<double>(operation.end_time().seconds() - operation.create_time().seconds()) +
         1e-9 * (operation.end_time().nanos() - operation.create_time().nanos());
}

// How far it is, or how long it took.
std::string ProgressWord(const v1::Operation& operation) {
  if (operation.state() == v1::OPERATION_STATE_SUCCEEDED) {
    return "took " + FormatSeconds(Elapsed(operation));
  }
  const auto& progress = operation.progress();
  if (progress.total_bytes() <= 0) return progress.phase();
  return fmt::format("{} {:.0f}%", progress.phase(),
                     100.0 * static_cast<double>(progress.done_bytes()) /
                         static_cast<double>(progress.total_bytes()));
}

std::string OperationText(const v1::Operation& operation) {
  FactList facts;
  facts.Add("operation", operation.name());
  facts.Add("kind", operation.kind());
  facts.Add("subject", operation.subject());
  facts.Add("state", StateWord(operation.state()));
  if (!IsFinal(operation)) facts.Add("progress", ProgressWord(operation));
  if (operation.state() == v1::OPERATION_STATE_FAILED) {
    facts.Add("failed in", operation.progress().phase());
  }
  facts.Add("caller", operation.caller());
  if (operation.term() != 0) facts.Add("term", std::to_string(operation.term()));
  facts.Add("created", FormatClock(operation.create_time()));
  if (operation.has_end_time()) {
    facts.Add("ended", FormatClock(operation.end_time()));
    facts.Add("took", FormatSeconds(Elapsed(operation)));
  }
  facts.Add("result", operation.result_name());
  for (const auto& [name, value] :
       FormatFacts({operation.result().begin(), operation.result().end()})) {
    facts.Add("  " + name, value);
  }
  if (operation.has_error()) {
    facts.Add("error", operation.error().message());
    facts.Add("reason", operation.error().reason());
  }
  return facts.ToString();
}

// 0 when the operation could be fetched.
int FetchOperation(const Client& client, const std::string& name, v1::Operation* operation) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetOperationRequest request;
  request.set_name(FullName(name));
  v1::GetOperationResponse response;
  if (auto status = client.operations->GetOperation(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  *operation = response.operation();
  return kExitOk;
}

void PrintOperation(const Client& client, const v1::Operation& operation) {
  if (client.json()) {
    Client::PrintJson(operation);
  } else {
    fmt::print("{}", OperationText(operation));
  }
}

}  // namespace

int ListOperations(const Client& client, const OperationListOptions& options) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::ListOperationsRequest request;
  request.set_page_size(options.limit);
  request.set_running_only(options.running_only);
  v1::ListOperationsResponse response;
  if (auto status = client.operations->ListOperations(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  TextTable table({"OPERATION", "KIND", "STATE", "PROGRESS", "CREATED", "?CALLER"});
  for (const auto& operation : response.operations()) {
    table.AddRow({operation.name(), operation.kind(), StateWord(operation.state()),
                  ProgressWord(operation), FormatTime(operation.create_time()),
                  operation.caller()});
  }
  fmt::print("{}", table.empty() ? "no operations\n" : table.ToString(OutputOptions().width));
  return kExitOk;
}

int ShowOperation(const Client& client, const std::string& name) {
  v1::Operation operation;
  if (const int code = FetchOperation(client, name, &operation); code != kExitOk) return code;
  PrintOperation(client, operation);
  return kExitOk;
}

int WatchOperationCommand(const Client& client, const std::string& name) {
  v1::Operation operation;
  if (const int code = FetchOperation(client, name, &operation); code != kExitOk) return code;
  const int code = FollowOperation(client, &operation, {});
  PrintOperation(client, operation);
  return code;
}

int WaitForOperation(const Client& client, const OperationWaitOptions& options) {
  v1::WaitOperationRequest request;
  request.set_name(FullName(options.name));
  *request.mutable_timeout() = DurationProto(options.timeout);
  grpc::ClientContext context;
  client.Prepare(context, options.timeout);
  v1::WaitOperationResponse response;
  if (auto status = client.operations->WaitOperation(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  v1::Operation operation = response.operation();
  PrintOperation(client, operation);
  if (IsFinal(operation)) return FollowOperation(client, &operation, {});
  return client.Fail(
      ErrorFrom("DEADLINE_EXCEEDED",
                fmt::format("{} goes on, in phase {}. HINT: metalctl op watch {}", operation.name(),
                            operation.progress().phase(), operation.name())),
      kExitTimeout);
}

int CancelOperation(const Client& client, const std::string& name) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::CancelOperationRequest request;
  request.set_name(FullName(name));
  v1::CancelOperationResponse response;
  if (auto status = client.operations->CancelOperation(&context, request, &response);
      !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response.operation());
  } else {
    const std::string state = StateWord(response.operation().state());
    const std::string& operation = response.operation().name();
    fmt::print("{}\n", IsFinal(response.operation())
                           ? fmt::format("{} was over already: {}", operation, state)
                           : fmt::format("asked {} to stop; it is {}", operation, state));
  }
  return kExitOk;
}

}  // namespace metal::ctl
