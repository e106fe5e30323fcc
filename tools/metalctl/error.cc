#include "tools/metalctl/error.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "fmt/format.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"

namespace metal::ctl {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// Calls on_bytes(field, bytes) for each length-delimited field of a message; false when it is
// malformed.
template <typename OnBytes>
bool ForEachBytes(const std::string& message, OnBytes on_bytes) {
  CodedInputStream input(reinterpret_cast<const uint8_t*>(message.data()),
                         static_cast<int>(message.size()));
  while (const uint32_t tag = input.ReadTag()) {
    if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      if (!WireFormatLite::SkipField(&input, tag)) return false;
      continue;
    }
    uint32_t size = 0;
    std::string bytes;
    if (!input.ReadVarint32(&size) || !input.ReadString(&bytes, static_cast<int>(size))) {
      return false;
    }
    on_bytes(WireFormatLite::GetTagFieldNumber(tag), bytes);
  }
  return input.ConsumedEntireMessage();
}

// google.rpc.ErrorInfo: 1 reason, 2 domain, 3 map of metadata.
void ReadErrorInfo(const std::string& info, Error* error) {
  ForEachBytes(info, [&](int field, const std::string& bytes) {
    if (field == 1) error->reason = bytes;
    if (field != 3) return;
    std::string name, value;
    ForEachBytes(bytes,
                 [&](int part, const std::string& text) { (part == 1 ? name : value) = text; });
    error->metadata[name] = value;
  });
}

// google.rpc.Status: 3 details, each an Any: 1 type_url, 2 value.
void ReadDetails(const std::string& details, Error* error) {
  ForEachBytes(details, [&](int field, const std::string& any) {
    if (field != 3) return;
    std::string type, value;
    ForEachBytes(any,
                 [&](int part, const std::string& text) { (part == 1 ? type : value) = text; });
    if (type == "type.googleapis.com/google.rpc.ErrorInfo") ReadErrorInfo(value, error);
  });
}

}  // namespace

std::string CodeName(int code) {
  constexpr std::array kNames = {"OK",
                                 "CANCELLED",
                                 "UNKNOWN",
                                 "INVALID_ARGUMENT",
                                 "DEADLINE_EXCEEDED",
                                 "NOT_FOUND",
                                 "ALREADY_EXISTS",
                                 "PERMISSION_DENIED",
                                 "RESOURCE_EXHAUSTED",
                                 "FAILED_PRECONDITION",
                                 "ABORTED",
                                 "OUT_OF_RANGE",
                                 "UNIMPLEMENTED",
                                 "INTERNAL",
                                 "UNAVAILABLE",
                                 "DATA_LOSS",
                                 "UNAUTHENTICATED"};
  if (code < 0 || code >= static_cast<int>(kNames.size())) return fmt::format("CODE_{}", code);
  return kNames[static_cast<size_t>(code)];
}

Error ErrorFrom(std::string_view code, std::string_view text) {
  Error error;
  error.code = code;
  const size_t hint = text.find("HINT: ");
  error.message = text.substr(0, hint);
  if (hint != std::string_view::npos) error.hint = text.substr(hint + 6);
  while (!error.message.empty() && (error.message.back() == ' ' || error.message.back() == '\n')) {
    error.message.pop_back();
  }
  return error;
}

Error ErrorOf(const grpc::Status& status) {
  Error error = ErrorFrom(CodeName(status.error_code()), status.error_message());
  ReadDetails(status.error_details(), &error);
  return error;
}

Error ErrorOf(const metal::agent::v1::OperationError& operation) {
  Error error = ErrorFrom(CodeName(operation.code()), operation.message());
  error.reason = operation.reason();
  error.metadata.insert(operation.metadata().begin(), operation.metadata().end());
  return error;
}

std::string HintForPeople(std::string_view hint) {
  struct Row {
    std::string_view rpc, command;
  };
  static constexpr std::array kCommands = {
      Row{"AcknowledgeFault", "disk acknowledge"},
      Row{"BeginTerm", "term begin"},
      Row{"CancelOperation", "op cancel"},
      Row{"CaptureDiagnostics", "diag"},
      Row{"Clone", "clone"},
      Row{"CreateBackup", "backup create"},
      Row{"Fence", "fence"},
      Row{"GetConfig", "pg config get"},
      Row{"GetStatus", "status"},
      Row{"InitDataDirectory", "pg init"},
      Row{"ListBackups", "backup list"},
      Row{"ListDisks", "disk list"},
      Row{"ListEvents", "events"},
      Row{"ListOperations", "op list"},
      Row{"Promote", "promote"},
      Row{"RestartPostgres", "pg restart"},
      Row{"RestoreBackup", "backup restore"},
      Row{"StartPostgres", "pg start"},
      Row{"StopPostgres", "pg stop"},
      Row{"Unfence", "unfence"},
      Row{"VerifyBackup", "backup verify"},
  };
  std::string out;
  for (size_t at = 0; at < hint.size();) {
    size_t end = at;
    while (end < hint.size() && absl::ascii_isalnum(static_cast<unsigned char>(hint[end]))) ++end;
    const std::string_view word = hint.substr(at, end - at);
    const auto* row = std::find_if(kCommands.begin(), kCommands.end(),
                                   [&](const Row& each) { return each.rpc == word; });
    if (row != kCommands.end()) {
      out += "metalctl ";
      out += row->command;
    } else {
      out += word;
    }
    if (end < hint.size()) out += hint[end++];
    at = end;
  }
  return out;
}

std::string ErrorText(const Error& error) {
  std::string text = fmt::format(
      "metalctl: {}\n", error.message.empty() ? error.code + " without a message" : error.message);
  if (!error.hint.empty()) text += fmt::format("HINT: {}\n", HintForPeople(error.hint));
  return text;
}

std::string ErrorJson(const Error& error) {
  std::string metadata;
  for (const auto& [name, value] : error.metadata) {
    metadata +=
        fmt::format("{}{}:{}", metadata.empty() ? "" : ",", JsonString(name), JsonString(value));
  }
  return fmt::format(
      R"({{"error":{{"code":{},"reason":{},"message":{},"hint":{},"metadata":{{{}}}}}}})",
      JsonString(error.code), JsonString(error.reason), JsonString(error.message),
      JsonString(error.hint), metadata);
}

std::string JsonString(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<int>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace metal::ctl
