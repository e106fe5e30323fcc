#include "tools/metalctl/known_names.h"

namespace metal::ctl {
namespace {

std::string WithoutCollection(const std::string& name) { return name.substr(name.find('/') + 1); }

}  // namespace

std::vector<std::string> KnownNames(const ClientOptions& options, const std::string& kind,
                                    absl::Duration patience) {
  ClientOptions hurried = options;
  hurried.timeout = patience;
  const Client client(hurried);
  grpc::ClientContext context;
  client.Prepare(context);
  std::vector<std::string> names;
  if (kind == "backup") {
    names.emplace_back("latest");
    v1::ListBackupsResponse response;
    client.backup->ListBackups(&context, {}, &response);
    for (const auto& each : response.backups()) {
      names.push_back(WithoutCollection(each.summary().name()));
    }
  } else if (kind == "operation") {
    v1::ListOperationsRequest request;
    request.set_page_size(20);
    v1::ListOperationsResponse response;
    client.operations->ListOperations(&context, request, &response);
    for (const auto& each : response.operations()) names.push_back(WithoutCollection(each.name()));
  } else if (kind == "disk") {
    v1::ListDisksResponse response;
    client.storage->ListDisks(&context, {}, &response);
    for (const auto& each : response.disks()) names.push_back(each.device());
  }
  return names;
}

}  // namespace metal::ctl
