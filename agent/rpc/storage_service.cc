#include "agent/rpc/storage_service.h"

#include <algorithm>
#include <cmath>

#include "agent/base/status.h"
#include "agent/disk/nvme/log_fields.h"
#include "agent/rpc/convert_operation.h"
#include "agent/rpc/convert_status.h"

namespace metal::rpc {
namespace {

constexpr std::string_view kDiskPrefix = "disks/";
constexpr absl::Duration kSlice = absl::Milliseconds(250);
constexpr int kMostPeerDisks = 64;

// Faults whose subject is the disk or a directory that is probed on it.
bool Concerns(const observe::Fault& fault, const observe::DiskSection& disk) {
  if (fault.subject == disk.device) return true;
  return std::any_of(
      disk.probes.begin(), disk.probes.end(), [&](const observe::ProbeSection& probe) {
        return fault.subject == probe.path || fault.subject == disk.device + ":" + probe.role;
      });
}

template <typename Response>
void PressureToProto(const observe::NodeStatus& status, base::MonotonicTime now, Response* out) {
  if (IsKnown(status.pressure)) ToProto(status.pressure, now, out->mutable_pressure());
}

void ToProto(const disk::LogTable& table, v1::DriveLog* log) {
  log->set_name(std::string(table.name));
  for (const disk::LogRecord& record : table.records) {
    v1::DriveLogRecord* const entry = log->add_records();
    for (const disk::LogField& field : record.fields) {
      v1::DriveLogField* const out = entry->add_fields();
      out->set_name(field.name);
      out->set_value(field.value);
    }
  }
}

}  // namespace

grpc::Status StorageService::ListDisks(grpc::ServerContext* context, const v1::ListDisksRequest*,
                                       v1::ListDisksResponse* response) {
  return handler_.Run("StorageService/ListDisks", *context, [&](const std::string&) {
    const auto status = board_.Get();
    for (const auto& disk : status->disks) {
      ToProto(disk, clock_.Monotonic(), response->add_disks());
    }
    PressureToProto(*status, clock_.Monotonic(), response);
    return absl::OkStatus();
  });
}

grpc::Status StorageService::GetStorageHealth(grpc::ServerContext* context,
                                              const v1::GetStorageHealthRequest* request,
                                              v1::GetStorageHealthResponse* response) {
  return handler_.Run(
      "StorageService/GetStorageHealth", *context, [&](const std::string&) -> absl::Status {
        const auto status = board_.Get();
        for (const auto& disk : status->disks) {
          if ("disks/" + disk.device != request->name()) continue;
          ToProto(disk, clock_.Monotonic(), response->mutable_disk());
          for (const auto& [key, fault] : status->faults) {
            if (Concerns(fault, disk)) ToProto(fault, response->add_faults());
          }
          PressureToProto(*status, clock_.Monotonic(), response);
          return absl::OkStatus();
        }
        return base::Error(absl::StatusCode::kNotFound,
                           "no disk '{}' under this node's directories. HINT: metalctl disk list",
                           request->name());
      });
}

grpc::Status StorageService::WatchStorageHealth(
    grpc::ServerContext* context, const v1::WatchStorageHealthRequest*,
    grpc::ServerWriter<v1::WatchStorageHealthResponse>* writer) {
  return handler_.Run("StorageService/WatchStorageHealth", *context, [&](const std::string&) {
    uint64_t revision = 0;
    while (!ShouldStop(*context)) {
      const auto status = board_.WaitAfter(revision, kSlice);
      if (status->revision == revision) continue;
      revision = status->revision;
      v1::WatchStorageHealthResponse response;
      response.set_revision(revision);
      for (const auto& disk : status->disks) {
        ToProto(disk, clock_.Monotonic(), response.add_disks());
        for (const auto& [key, fault] : status->faults) {
          if (Concerns(fault, disk)) ToProto(fault, response.add_faults());
        }
      }
      PressureToProto(*status, clock_.Monotonic(), &response);
      if (!writer->Write(response)) break;
      clock_.Sleep(kSlice);
    }
    return absl::OkStatus();
  });
}

grpc::Status StorageService::TellPeers(grpc::ServerContext* context,
                                       const v1::TellPeersRequest* request,
                                       v1::TellPeersResponse*) {
  return handler_.Run(
      "StorageService/TellPeers", *context, [&](const std::string&) -> absl::Status {
        if (request->disks_size() > kMostPeerDisks ||
            request->fenced_node_ids_size() > kMostPeerDisks) {
          return base::Error(absl::StatusCode::kInvalidArgument,
                             "{} disks and {} fenced members. HINT: at most {} of each",
                             request->disks_size(), request->fenced_node_ids_size(),
                             kMostPeerDisks);
        }
        std::vector<disk::PeerExcess> peers;
        for (const auto& each : request->disks()) {
          if (!std::isfinite(each.median_excess()) || !std::isfinite(each.p99_excess())) {
            return base::Error(absl::StatusCode::kInvalidArgument,
                               "the excess of {} is no number. HINT: as DiskSlowness has it",
                               each.node_id());
          }
          peers.push_back({each.node_id(), each.role(), {each.median_excess(), each.p99_excess()}});
        }
        node_.TellPeers(std::move(peers),
                        {request->fenced_node_ids().begin(), request->fenced_node_ids().end()});
        return absl::OkStatus();
      });
}

grpc::Status StorageService::AcknowledgeFault(grpc::ServerContext* context,
                                              const v1::AcknowledgeFaultRequest* request,
                                              v1::AcknowledgeFaultResponse* response) {
  return handler_.Run("StorageService/AcknowledgeFault", *context,
                      [&](const std::string& caller) -> absl::Status {
                        METAL_ASSIGN_OR_RETURN(const std::vector<observe::Fault> faults,
                                               node_.AcknowledgeFault({
                                                   .fault_class = request->fault_class(),
                                                   .subject = request->subject(),
                                                   .device = request->device(),
                                                   .caller = caller,
                                                   .reason = request->reason(),
                                                   .force = request->force(),
                                               }));
                        for (const auto& fault : faults) ToProto(fault, response->add_faults());
                        return absl::OkStatus();
                      });
}

grpc::Status StorageService::GetDriveLogs(grpc::ServerContext* context,
                                          const v1::GetDriveLogsRequest* request,
                                          v1::GetDriveLogsResponse* response) {
  return handler_.Run("StorageService/GetDriveLogs", *context,
                      [&](const std::string&) -> absl::Status {
                        std::string_view device = request->name();
                        if (device.starts_with(kDiskPrefix))
                          device.remove_prefix(kDiskPrefix.size());
                        METAL_ASSIGN_OR_RETURN(const disk::DriveReport report,
                                               node_.GetDriveReport(std::string(device)));
                        response->set_unavailable_reason(report.unavailable);
                        if (report.logs.smart)
                          *response->mutable_read_time() = ToProto(report.logs.time);
                        for (const disk::LogTable& table : disk::TablesOfLogs(report.logs)) {
                          ToProto(table, response->add_logs());
                        }
                        return absl::OkStatus();
                      });
}

grpc::Status StorageService::RunStorageProbe(grpc::ServerContext* context,
                                             const v1::RunStorageProbeRequest* request,
                                             v1::RunStorageProbeResponse* response) {
  return handler_.Run(
      "StorageService/RunStorageProbe", *context, [&](const std::string& caller) -> absl::Status {
        METAL_ASSIGN_OR_RETURN(
            const auto operation,
            node_.RunStorageProbe(MakeRequestContext(*request, request->request_id(), caller),
                                  {request->role(), request->reads(), request->writes()}));
        ToProto(operation, response->mutable_operation());
        return absl::OkStatus();
      });
}

}  // namespace metal::rpc
