#include "agent/rpc/access.h"

#include <set>

#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "metal/agent/v1/backup_service.pb.h"
#include "metal/agent/v1/host_service.pb.h"
#include "metal/agent/v1/operations_service.pb.h"
#include "metal/agent/v1/postgres_service.pb.h"
#include "metal/agent/v1/replication_service.pb.h"
#include "metal/agent/v1/storage_service.pb.h"

namespace metal::rpc {
namespace {

std::set<std::string> DeclaredRpcs() {
  // Makes sure that each file is linked in and registered.
  const google::protobuf::FileDescriptor* files[] = {
      metal::agent::v1::GetStatusRequest::descriptor()->file(),
      metal::agent::v1::GetOperationRequest::descriptor()->file(),
      metal::agent::v1::StartPostgresRequest::descriptor()->file(),
      metal::agent::v1::PromoteRequest::descriptor()->file(),
      metal::agent::v1::CreateBackupRequest::descriptor()->file(),
      metal::agent::v1::ListDisksRequest::descriptor()->file()};
  std::set<std::string> rpcs;
  for (const auto* file : files) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        rpcs.insert(file->service(s)->name() + "/" + file->service(s)->method(m)->name());
      }
    }
  }
  return rpcs;
}

TEST(AccessTest, EveryDeclaredRpcHasExactlyOneRow) {
  std::multiset<std::string> rows;
  for (const auto& row : RpcPermissions()) rows.emplace(row.rpc);
  const auto declared = DeclaredRpcs();
  EXPECT_EQ(std::set<std::string>(rows.begin(), rows.end()), declared);
  EXPECT_EQ(rows.size(), declared.size());
}

TEST(AccessTest, RolesGrowFromViewerToOrchestrator) {
  EXPECT_TRUE(MayCall(CallerRole::kViewer, Permission::kObserve));
  EXPECT_FALSE(MayCall(CallerRole::kViewer, Permission::kOperate));
  EXPECT_FALSE(MayCall(CallerRole::kPeer, Permission::kOperate));
  EXPECT_TRUE(MayCall(CallerRole::kOperator, Permission::kOperate));
  EXPECT_FALSE(MayCall(CallerRole::kOperator, Permission::kOrchestrate));
  EXPECT_TRUE(MayCall(CallerRole::kOrchestrator, Permission::kOrchestrate));
}

class AccessControlTest : public testing::Test {
 protected:
  AccessControl access_{{{"watcher.example", "viewer"}, {"boss.example", "orchestrator"}}};
};

TEST_F(AccessControlTest, ACertificateGivesTheRoleOfItsExactName) {
  auto caller =
      access_.Authorize("ReplicationService/Promote", "ipv4:10.0.0.1:1", true, {"boss.example"});
  ASSERT_TRUE(caller.ok());
  EXPECT_EQ(*caller, "boss.example");
}

TEST_F(AccessControlTest, ANameThatOnlyContainsABoundNameIsRefused) {
  for (const char* name : {"boss.example.evil", "xboss.example", "BOSS.example", ""}) {
    auto caller = access_.Authorize("ReplicationService/Promote", "ipv4:10.0.0.1:1", true, {name});
    EXPECT_EQ(caller.status().code(), absl::StatusCode::kPermissionDenied) << name;
  }
}

TEST_F(AccessControlTest, AViewerMayLookButNotAct) {
  EXPECT_TRUE(
      access_.Authorize("HostService/GetStatus", "ipv4:1:1", true, {"watcher.example"}).ok());
  auto refused =
      access_.Authorize("BackupService/CreateBackup", "ipv4:1:1", true, {"watcher.example"});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.status().message()), testing::HasSubstr("CreateBackup"));
  EXPECT_EQ(base::GetReason(refused.status())->reason, "PERMISSION_DENIED");
}

TEST_F(AccessControlTest, ACertificateWithoutABoundNameMayNotEvenLook) {
  EXPECT_FALSE(access_.Authorize("HostService/GetStatus", "ipv4:1:1", true, {"stranger"}).ok());
  EXPECT_FALSE(access_.Authorize("HostService/GetStatus", "ipv4:1:1", true, {}).ok());
}

TEST_F(AccessControlTest, TheUnixSocketHasEveryRole) {
  auto caller =
      access_.Authorize("ReplicationService/Fence", "unix:/run/metal/agent.sock", false, {});
  ASSERT_TRUE(caller.ok());
  EXPECT_EQ(*caller, "unix");
}

TEST_F(AccessControlTest, AnRpcWithoutARowIsRefused) {
  EXPECT_FALSE(access_.Authorize("HostService/Sleep", "unix:/x", false, {}).ok());
}

}  // namespace
}  // namespace metal::rpc
