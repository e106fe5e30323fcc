#include "agent/rpc/operations_service.h"

#include <algorithm>

#include "agent/base/status.h"
#include "agent/rpc/convert_operation.h"
#include "agent/rpc/convert_status.h"

namespace metal::rpc {
namespace {

constexpr absl::Duration kSlice = absl::Milliseconds(250);
constexpr absl::Duration kWaitDefault = absl::Seconds(30);
constexpr absl::Duration kWaitMax = absl::Minutes(10);
constexpr int kPageMax = 1000;

}  // namespace

grpc::Status OperationsService::GetOperation(grpc::ServerContext* context,
                                             const v1::GetOperationRequest* request,
                                             v1::GetOperationResponse* response) {
  return handler_.Run(
      "OperationsService/GetOperation", *context, [&](const std::string&) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(const auto operation, operations_.Get(request->name()));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

grpc::Status OperationsService::ListOperations(grpc::ServerContext* context,
                                               const v1::ListOperationsRequest* request,
                                               v1::ListOperationsResponse* response) {
  return handler_.Run(
      "OperationsService/ListOperations", *context, [&](const std::string&) -> absl::Status {
        if (request->page_size() < 0 || request->page_size() > kPageMax) {
          return base::Error(absl::StatusCode::kInvalidArgument, "page_size {} is not in 1 … {}",
                             request->page_size(), kPageMax);
        }
        node::OperationFilter filter;
        filter.unfinished = request->running_only();
        if (request->page_size() > 0) filter.page_size = static_cast<size_t>(request->page_size());
        filter.page_token = request->page_token();
        METAL_ASSIGN_OR_RETURN(const auto page, operations_.List(filter));
        for (const auto& operation : page.operations)
          ToProto(operation, response->add_operations());
        response->set_next_page_token(page.next_page_token);
        return absl::OkStatus();
      });
}

grpc::Status OperationsService::WaitOperation(grpc::ServerContext* context,
                                              const v1::WaitOperationRequest* request,
                                              v1::WaitOperationResponse* response) {
  return handler_.Run(
      "OperationsService/WaitOperation", *context, [&](const std::string&) -> absl::Status {
        const absl::Duration timeout = request->has_timeout()
                                           ? std::min(FromProto(request->timeout()), kWaitMax)
                                           : kWaitDefault;
        const base::MonotonicTime end = clock_.Monotonic() + timeout;
        while (true) {
          const absl::Duration left = end - clock_.Monotonic();
          METAL_ASSIGN_OR_RETURN(
              const auto operation,
              operations_.Wait(request->name(), std::clamp(left, absl::ZeroDuration(), kSlice)));
          if (operation.done() || left <= kSlice || ShouldStop(*context)) {
            ToProto(operation, response->mutable_operation());
            return absl::OkStatus();
          }
        }
      });
}

grpc::Status OperationsService::WatchOperation(
    grpc::ServerContext* context, const v1::WatchOperationRequest* request,
    grpc::ServerWriter<v1::WatchOperationResponse>* writer) {
  return handler_.Run(
      "OperationsService/WatchOperation", *context, [&](const std::string&) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(auto operation, operations_.Get(request->name()));
        while (true) {
          v1::WatchOperationResponse response;
          ToProto(operation, response.mutable_operation());
          if (!writer->Write(response) || operation.done() || ShouldStop(*context)) {
            return absl::OkStatus();
          }
          // A change of state ends the wait early; bytes alone are shown at the slice's pace.
          METAL_ASSIGN_OR_RETURN(
              operation, operations_.WaitForChange(request->name(), operation.revision, kSlice));
        }
      });
}

grpc::Status OperationsService::CancelOperation(grpc::ServerContext* context,
                                                const v1::CancelOperationRequest* request,
                                                v1::CancelOperationResponse* response) {
  return handler_.Run(
      "OperationsService/CancelOperation", *context, [&](const std::string&) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(const auto operation, operations_.Cancel(request->name()));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

}  // namespace metal::rpc
