#include "agent/rpc/handler.h"

#include <algorithm>
#include <chrono>

#include "agent/base/status.h"
#include "fmt/format.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace metal::rpc {
namespace {

// Longer than the slices in which waits look whether they should end, and the way back.
constexpr absl::Duration kAnswerMargin = absl::Milliseconds(500);

// The same bytes for the same message: map entries are sorted.
std::string SerializeDeterministically(const google::protobuf::Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

// Clears `request_id`, also inside a term header.
void ClearRequestId(google::protobuf::Message& message) {
  const auto* descriptor = message.GetDescriptor();
  const auto* reflection = message.GetReflection();
  if (const auto* field = descriptor->FindFieldByName("request_id")) {
    reflection->ClearField(&message, field);
  }
  const auto* header = descriptor->FindFieldByName("header");
  if (header != nullptr && reflection->HasField(message, header)) {
    ClearRequestId(*reflection->MutableMessage(&message, header));
  }
}

// FNV-1a, 128 bits in two independent halves: equality of request bodies, not security.
std::string Fingerprint(const std::string& bytes) {
  uint64_t low = 0xcbf29ce484222325ULL;
  uint64_t high = 0x84222325cbf29ce4ULL;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    low = (low ^ byte) * 0x100000001b3ULL;
    high = (high + byte) * 0x9e3779b97f4a7c15ULL;
    high ^= high >> 29;
  }
  return fmt::format("{:016x}{:016x}", high, low);
}

}  // namespace

Handler::Place::Place(const Handler& handler, Pace pace) {
  int most = 0;
  switch (pace) {
    case Pace::kInstant:
      return;
    case Pace::kActs:
      count_ = &handler.acting_;
      most = kActsAtOnce;
      break;
    case Pace::kWatches:
      count_ = &handler.watching_;
      most = kWatchesAtOnce;
      break;
    case Pace::kOrders:
      count_ = &handler.ordering_;
      most = kOrdersAtOnce;
      break;
  }
  taken_ = count_->fetch_add(1) < most;
}

Handler::Place::~Place() {
  if (count_ != nullptr) count_->fetch_sub(1);
}

absl::Status Handler::TooManyCalls(std::string_view rpc) {
  return base::WithReason(
      base::Error(absl::StatusCode::kResourceExhausted,
                  "{} refused: too many calls of its kind are running. HINT: GetStatus says what "
                  "the node waits for; end watches that nobody reads",
                  rpc),
      {"TOO_MANY_CALLS", {{"rpc", std::string(rpc)}}});
}

absl::Status Handler::NameTimeout(std::string_view rpc, absl::Status status) {
  const std::string message(status.message());
  if (!absl::IsDeadlineExceeded(status) || message.find("HINT: ") != std::string::npos)
    return status;
  const absl::Status named = base::Error(
      status.code(),
      "{}: {}. HINT: what it began may go on: metalctl status and metalctl op list show "
      "what runs",
      rpc, message);
  const auto reason = base::GetReason(status);
  return reason ? base::WithReason(named, *reason) : named;
}

void Handler::LogRefusal(std::string_view rpc, const absl::Status& status) {
  base::LogInfo("event=rpc.refused rpc={} code={} message=\"{}\"", rpc,
                absl::StatusCodeToString(status.code()),
                std::string_view(status.message().data(), status.message().size()));
}

uint64_t Handler::TermOf(const google::protobuf::Message& request) {
  const auto* descriptor = request.GetDescriptor();
  const auto* reflection = request.GetReflection();
  if (const auto* field = descriptor->FindFieldByName("term");
      field != nullptr && field->type() == field->TYPE_UINT64) {
    return reflection->GetUInt64(request, field);
  }
  const auto* header = descriptor->FindFieldByName("header");
  return header != nullptr && reflection->HasField(request, header)
             ? TermOf(reflection->GetMessage(request, header))
             : 0;
}

void Handler::Record(const Call& call, const grpc::ServerContextBase& context,
                     const absl::Status& status) const {
  if (recorder_ == nullptr) return;
  recorder::Entry entry(recorder::RecordKind::kRpc);
  entry.Add("rpc", call.rpc).Add("caller", call.caller).Add("peer", context.peer());
  if (const auto auth = context.auth_context()) {
    for (const auto& name : auth->FindPropertyValues("x509_common_name"))
      entry.Add("subject", std::string_view(name.data(), name.size()));
  }
  if (call.term != 0) entry.Add("term", static_cast<int64_t>(call.term));
  const std::string code = absl::StatusCodeToString(status.code());
  entry.Add("code", code).Add("duration_us", absl::ToInt64Microseconds(call.took));
  if (!status.ok()) {
    if (const auto reason = base::GetReason(status)) entry.Add("reason", reason->reason);
    const auto message = status.message();
    entry.Add("message", std::string_view(message.data(), message.size()));
  }
  recorder_->Put(entry);
}

node::RequestContext MakeRequestContext(const google::protobuf::Message& request,
                                        const std::string& request_id, const std::string& caller) {
  std::unique_ptr<google::protobuf::Message> copy(request.New());
  copy->CopyFrom(request);
  ClearRequestId(*copy);
  node::RequestContext context;
  context.request_id = request_id;
  context.body_hash =
      Fingerprint(request.GetDescriptor()->full_name() + '\n' + SerializeDeterministically(*copy));
  context.caller = caller;
  return context;
}

bool ShouldStop(const grpc::ServerContext& context) { return context.IsCancelled(); }

absl::Duration TimeToAnswer(const grpc::ServerContext& context) {
  // By the clock that gRPC reads: absl::Now() may take two seconds to follow a step of it.
  const absl::Duration left =
      absl::FromChrono(context.deadline() - std::chrono::system_clock::now());
  return std::max(left - std::min(kAnswerMargin, left / 4), absl::ZeroDuration());
}

}  // namespace metal::rpc
