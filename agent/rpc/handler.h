// What every RPC does around its domain call: authorize, take a place among the calls of its pace,
// run, map the status, log refusals and failures. Threading: thread-safe.
#pragma once

#include <atomic>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/node/operations/operation.h"
#include "agent/recorder/recorder.h"
#include "agent/rpc/access.h"
#include "agent/rpc/grpc_status.h"
#include "google/protobuf/message.h"
#include "grpcpp/server_context.h"

namespace metal::rpc {

// Shared by all services. The references outlive the server.
class Handler {
 public:
  // `recorder` (may be null) gets a record of each call when it ends.
  explicit Handler(const AccessControl& access, recorder::Recorder* recorder = nullptr)
      : access_(access), recorder_(recorder) {}

  // Calls body(caller) → absl::Status after the caller was authorized. `rpc` is "Service/Method".
  // RESOURCE_EXHAUSTED (TOO_MANY_CALLS) when too many calls of its pace run.
  template <typename Body>
  grpc::Status Run(std::string_view rpc, const grpc::ServerContextBase& context,
                   Body&& body) const {
    return RunRecorded(rpc, context, 0, std::forward<Body>(body));
  }
  // The same for a request with a term: in its header, or as a field of its own.
  template <typename Body>
  grpc::Status Run(std::string_view rpc, const grpc::ServerContextBase& context,
                   const google::protobuf::Message& request, Body&& body) const {
    return RunRecorded(rpc, context, TermOf(request), std::forward<Body>(body));
  }

 private:
  template <typename Body>
  grpc::Status RunRecorded(std::string_view rpc, const grpc::ServerContextBase& context,
                           uint64_t term, Body&& body) const {
    const base::MonotonicTime begin = base::RealClock().Monotonic();
    auto caller = access_.Authorize(rpc, context);
    absl::Status status = caller.status();
    if (status.ok()) {
      const Place place(*this, PaceOf(rpc));
      status = place.taken() ? body(*caller) : TooManyCalls(rpc);
    }
    Record({rpc, caller.ok() ? std::string_view(*caller) : std::string_view(), term,
            base::RealClock().Monotonic() - begin},
           context, status);
    base::Log(base::LogLevel::kTrace, "event=rpc.done rpc={} code={}", rpc,
              absl::StatusCodeToString(status.code()));
    if (status.ok()) return grpc::Status::OK;
    status = NameTimeout(rpc, std::move(status));
    LogRefusal(rpc, status);
    return ToGrpc(status);
  }

  struct Call {
    std::string_view rpc, caller;
    uint64_t term = 0;
    absl::Duration took;
  };
  void Record(const Call& call, const grpc::ServerContextBase& context,
              const absl::Status& status) const;
  static uint64_t TermOf(const google::protobuf::Message& request);

  // One running call; counted until it is destroyed.
  class Place {
   public:
    Place(const Handler& handler, Pace pace);
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    bool taken() const { return taken_; }

   private:
    std::atomic<int>* count_ = nullptr;  // null: not counted
    bool taken_ = true;
  };

  static absl::Status TooManyCalls(std::string_view rpc);
  // DEADLINE_EXCEEDED of ours says which call it was and what to do; others are returned as they
  // are.
  static absl::Status NameTimeout(std::string_view rpc, absl::Status status);
  static void LogRefusal(std::string_view rpc, const absl::Status& status);
  const AccessControl& access_;
  recorder::Recorder* const recorder_;
  mutable std::atomic<int> acting_{0}, watching_{0}, ordering_{0};
};

// Identity of a mutating request: its request_id and a hash of the rest of its body. `request_id`
// must be the field's own value inside `request`; two bodies that differ only in it have the same
// hash.
node::RequestContext MakeRequestContext(const google::protobuf::Message& request,
                                        const std::string& request_id, const std::string& caller);

// Waits and streams end early when the client is gone or the server shuts down: poll this between
// slices of at most 250 ms.
bool ShouldStop(const grpc::ServerContext& context);

// How long a call may still wait so that its own answer, with what goes on and a hint, arrives
// before the caller's deadline; not below zero. REQUIRES: the call has just begun.
absl::Duration TimeToAnswer(const grpc::ServerContext& context);

}  // namespace metal::rpc
