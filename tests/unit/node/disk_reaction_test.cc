// What a node does about a sick disk under its own server, without PostgreSQL.
#include <sys/stat.h>

#include <functional>

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/unit/node/node_fixture.h"
#include "tests/unit/pg/golden_control_files.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

class DiskReactionTest : public NodeTest {
 protected:
  using Detail = observe::DiskFaultDetail;
  // A confirmed fatal fault of the database's disk that asks for its fence, but for what `change`
  // says.
  void Raise(
      const std::string& fault_class, const std::function<void(Detail&)>& change = [](Detail&) {}) {
    auto detail = std::make_shared<Detail>();
    detail->roles = {"data"};
    detail->confirmed = detail->fatal = true;
    detail->reaction = "demote";
    change(*detail);
    observe::Fault fault;
    fault.fault_class = fault_class;
    fault.subject = "nvme0n1";
    fault.message = fault_class + " of nvme0n1";
    fault.disk = std::move(detail);
    board_.RaiseFault(std::move(fault));
  }
  void RaiseSick(const std::string& reaction) {
    Raise("write_error", [&](Detail& detail) { detail.reaction = reaction; });
  }
  void FenceForDisk() {
    ASSERT_OK(terms_->BeginTerm(holder_));
    ASSERT_OK(terms_->FenceNow(holder_, "disk: write_error nvme0n1"));
  }
  void LeadTheShard() {
    ASSERT_OK(terms_->BeginTerm(holder_));
    ASSERT_OK(terms_->SetRoleWanted(holder_, observe::Role::kPrimary));
  }
  // A directory that a server could be started on, were there one.
  void MakeStartable() {
    const std::vector<std::byte> control = pg::golden::Bytes(pg::golden::kControlFiles[1]);
    directory_.Write("data/PG_VERSION", "15\n");
    directory_.Write("data/pg_wal/000000020000000000000003", "WAL");
    directory_.Write("data/global/pg_control",
                     std::string(reinterpret_cast<const char*>(control.data()), control.size()));
    ASSERT_EQ(chmod(config_.pg_data_dir.c_str(), 0700), 0);
    const std::string program =
        directory_.Write("no-programs/postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 15.20'\n");
    ASSERT_EQ(chmod(program.c_str(), 0755), 0);
  }

  const TermHolder holder_{4, "a"};
};

// As an operation that was admitted before the fence.
TEST_F(DiskReactionTest, AFenceThatLandsWhileAStartIsUnderWayKeepsTheServerDown) {
  MakeStartable();
  RaiseSick("demote");
  FenceForDisk();
  Operation start;
  start.name = "operations/20260101T000000Z-0001";
  start.spec.kind = "StartPostgres";
  start.spec.subject = "postgres";
  start.spec.parameters = {{"no_progress_timeout", "1m"}};
  start.state = OperationState::kRunning;
  start.create_time = start.start_time = start.update_time = clock_.Now();
  RestartWith(start);
  ASSERT_OK_AND_ASSIGN(const Operation done, operations_->Wait(start.name, absl::Seconds(20)));
  EXPECT_EQ(done.state, OperationState::kFailed);
  EXPECT_THAT(std::string(done.error.message()), HasSubstr("on a failed disk"));
  EXPECT_FALSE(base::PathExists(config_.pg_data_dir + "/standby.signal")) << "it is not touched";
}

TEST_F(DiskReactionTest, NothingIsRewoundOnASickDiskThatTheNodeIsFencedFor) {
  MakeStartable();
  RaiseSick("demote");
  FenceForDisk();
  RewindRequest request;
  request.holder = holder_;
  request.host = "127.0.0.1";
  request.port = 1;  // nobody is there
  const auto refused = node_->Rewind(Request("r1"), request);
  EXPECT_EQ(ReasonOf(refused.status()), "FENCED");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("on a failed disk"));
  board_.ClearFault("write_error", "nvme0n1");
  EXPECT_OK(node_->Rewind(Request("r2"), request).status()) << "the drive was changed";
}

// As the role watch sees it, within a second or two.
TEST_F(DiskReactionTest, APrimaryFencesItselfUnlessAnotherMemberIsFencedAlready) {
  LeadTheShard();
  RaiseSick("demote");
  node_->TellPeers({}, {"n", "b"});  // "n" is this one
  node_->Begin();
  ASSERT_TRUE(events_.Await("disk.fence_withheld"));
  EXPECT_FALSE(terms_->Get().fence.active);
  EXPECT_TRUE(terms_->Get().MayRunAsPrimary());
  EXPECT_EQ(events_.Count("disk.fenced"), 0u);
}

TEST_F(DiskReactionTest, APrimaryOfWhosePeersNothingIsToldFencesItself) {
  LeadTheShard();
  RaiseSick("demote");
  node_->TellPeers({}, {"n"});
  node_->Begin();
  ASSERT_TRUE(events_.Await("disk.fenced"));
  EXPECT_TRUE(terms_->Get().FencedForDisk());
  EXPECT_EQ(events_.Attribute("disk_fence.step", "step"), "fence");
  EXPECT_NE(events_.Attribute("disk_fence.step", "duration_ms"), "");
  EXPECT_EQ(events_.Count("disk.fence_withheld"), 0u);
}

// Neither a disk that cannot be judged, nor one that may be well, nor one that bears no database.
TEST_F(DiskReactionTest, WhatIsNotKnownFencesNobody) {
  LeadTheShard();
  observe::DiskSection disk;
  disk.device = "nvme0n1";
  for (const char* state : {"unknown", "unsupported"}) {
    observe::ProbeSection probe;
    probe.role = "data";
    probe.state = state;
    disk.probes.push_back(probe);
  }
  board_.Update([&](observe::NodeStatus& status) { status.disks = {disk}; });
  Raise("stalled", [](Detail& detail) { detail.confirmed = false; });
  Raise("overheating", [](Detail& detail) { detail.fatal = false; });
  Raise("gone", [](Detail& detail) { detail.roles = {"repository"}; });
  Raise("corruption", [](Detail& detail) { detail.reaction = "drain"; });
  Raise("lost_write", [](Detail& detail) {
    detail.acknowledged = {"unix", "known", absl::UnixEpoch()};
  });
  node_->Begin();
  clock_.Sleep(absl::Milliseconds(2500));  // the role watch has looked at least twice
  EXPECT_FALSE(terms_->Get().fence.active) << terms_->Get().fence.reason;
  EXPECT_EQ(events_.Count("disk.fenced"), 0u);
  RaiseSick("demote");
  EXPECT_TRUE(events_.Await("disk.fenced")) << "it does look";
}

// Nothing else repairs a page that was half written when the power went.
TEST_F(DiskReactionTest, FullPageWritesStayOnWhereTheDriveMayTearAPage) {
  ApplyConfigRequest request;
  request.validate_only = true;
  int asked = 0;
  const auto refused = [&](const std::string& value, const std::string& name = "full_page_writes") {
    request.settings = {{name, value}};
    const auto answer = node_->ApplyConfig(Request(std::to_string(++asked)), request);
    return ReasonOf(answer.status()) == "TORN_WRITES";
  };
  EXPECT_FALSE(refused("off")) << "the drive is not known to";
  Raise("torn_writes", [](Detail& detail) { detail.fatal = false; });
  for (const char* off : {"off", "OF", "False", "no", "n", "0"}) EXPECT_TRUE(refused(off)) << off;
  for (const char* on : {"on", "o", "true", "1", "yes"}) EXPECT_FALSE(refused(on)) << on;
  EXPECT_TRUE(refused("off", "Full_Page_Writes"));
  EXPECT_FALSE(refused("off", "fsync"));
  Raise("torn_writes", [](Detail& detail) {
    detail.acknowledged = {"unix", "a filesystem does", absl::Now()};
  });
  EXPECT_FALSE(refused("off "));
}

// PostgreSQL takes every byte of a standby's name but NUL.
TEST_F(DiskReactionTest, NoNameOfAStandbyKeepsAPrimaryFromItsFence) {
  LeadTheShard();
  observe::FollowerSection follower;
  follower.application_name = "b\x7f\n\xff";
  follower.flush_lsn = {0x5000};
  board_.Update([&](observe::NodeStatus& status) { status.followers.followers = {follower}; });
  RaiseSick("demote");
  node_->Begin();
  ASSERT_TRUE(events_.Await("disk.fenced"));
  EXPECT_THAT(terms_->Get().fence.reason, HasSubstr("0/5000 (b???, )"));
}

}  // namespace
}  // namespace metal::node
