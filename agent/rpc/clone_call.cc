// ReplicationService::Clone.
#include "agent/base/status.h"
#include "agent/rpc/convert_operation.h"
#include "agent/rpc/convert_status.h"
#include "agent/rpc/replication_service.h"

namespace metal::rpc {
namespace {

absl::StatusOr<std::string> CodecOf(v1::CloneCodec codec) {
  switch (codec) {
    case v1::CLONE_CODEC_UNSPECIFIED:
    case v1::CLONE_CODEC_NONE:
      return std::string("none");
    case v1::CLONE_CODEC_LZ4:
      return std::string("lz4");
    case v1::CLONE_CODEC_ZSTD:
      return std::string("zstd");
    default:
      return base::Error(absl::StatusCode::kInvalidArgument, "unknown codec {}",
                         static_cast<int>(codec));
  }
}

}  // namespace

grpc::Status ReplicationService::Clone(grpc::ServerContext* context,
                                       const v1::CloneRequest* request,
                                       v1::CloneResponse* response) {
  return handler_.Run(
      "ReplicationService/Clone", *context, *request,
      [&](const std::string& caller) -> absl::Status {
        node::CloneRequest domain;
        METAL_ASSIGN_OR_RETURN(domain.holder, HolderOf(request->header()));
        METAL_ASSIGN_OR_RETURN(domain.codec, CodecOf(request->codec()));
        domain.source = request->source();
        domain.primary_host = request->primary_host();
        domain.primary_port = request->primary_port();
        domain.replace = request->replace();
        domain.tablespace_mapping = {request->tablespace_mapping().begin(),
                                     request->tablespace_mapping().end()};
        domain.rate_limit = request->bytes_per_second_max();
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.Clone(MakeRequestContext(*request, request->header().request_id(), caller),
                        domain));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

}  // namespace metal::rpc
