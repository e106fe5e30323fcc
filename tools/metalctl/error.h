// What went wrong, told to people or to programs. An error comes from a call (grpc::Status with
// google.rpc.ErrorInfo in its details), from an operation that ended badly, or from the command
// line. Pure functions.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "grpcpp/support/status.h"
#include "metal/agent/v1/operation.pb.h"

namespace metal::ctl {

struct Error {
  std::string code;     // name of a google.rpc.Code, or USAGE for wrong arguments
  std::string reason;   // name of an ErrorReason; empty when none applies
  std::string message;  // without the hint
  std::string hint;     // the next step; may be empty
  std::map<std::string, std::string> metadata;
};

// REQUIRES: !status.ok(). Details that do not parse are ignored.
Error ErrorOf(const grpc::Status& status);
Error ErrorOf(const metal::agent::v1::OperationError& error);
// Splits "message HINT: next step".
Error ErrorFrom(std::string_view code, std::string_view text);

// The hint with the agent's RPCs named as the commands that call them: "StartPostgres first" →
// "metalctl pg start first".
std::string HintForPeople(std::string_view hint);

// "metalctl: message\nHINT: …\n"
std::string ErrorText(const Error& error);
// One line: {"error":{"code":…,"reason":…,"message":…,"hint":…,"metadata":{…}}}
std::string ErrorJson(const Error& error);

// The text as a JSON string, with its quotes. Bytes that are no UTF-8 are passed on as they are.
std::string JsonString(std::string_view text);

// "FAILED_PRECONDITION"; "CODE_42" for one that is not known.
std::string CodeName(int code);

}  // namespace metal::ctl
