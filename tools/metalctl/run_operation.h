// Commands that start an operation: the call, following it to its end, and its result for people.
// Threading: the calling thread.
#pragma once

#include <functional>

#include "tools/metalctl/client.h"
#include "tools/metalctl/follow.h"

namespace metal::ctl {

// The facts of an operation's result, one a line.
void PrintFacts(const v1::Operation& operation);

// Follows the operation as FollowOperation; then prints it as JSON, or `show` prints it for people
// when it succeeded. Gives FollowOperation's exit code, and in *operation how it ended.
int FollowAndShow(const Client& client, v1::Operation* operation, const FollowOptions& follow,
                  const std::function<void(const v1::Operation&)>& show);

// Starts the operation with `call` of `stub`, then as FollowAndShow. `ended`, unless null: the
// operation as it ended.
template <typename Stub, typename Request, typename Response>
int RunOperation(const Client& client, Stub& stub,
                 grpc::Status (Stub::*call)(grpc::ClientContext*, const Request&, Response*),
                 const Request& request, const FollowOptions& follow,
                 const std::function<void(const v1::Operation&)>& show,
                 v1::Operation* ended = nullptr) {
  grpc::ClientContext context;
  client.Prepare(context);
  Response response;
  if (auto status = (stub.*call)(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  v1::Operation operation = std::move(*response.mutable_operation());
  const int code = FollowAndShow(client, &operation, follow, show);
  if (ended != nullptr) *ended = std::move(operation);
  return code;
}

}  // namespace metal::ctl
