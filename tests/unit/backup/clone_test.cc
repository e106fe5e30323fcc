// Clones over real sockets in one process: a source without a server, a target directory, and where
// a test needs it a relay between them that breaks connections.
#include "agent/backup/clone.h"

#include <fcntl.h>

#include <csignal>
#include <optional>

#include "agent/backup/clone_source.h"
#include "agent/backup/copy_rules.h"
#include "agent/base/check.h"
#include "agent/pg/data_directory.h"
#include "agent/pg/rewind_files.h"
#include "agent/transfer/listener.h"
#include "tests/unit/backup/backup_fixture.h"
#include "tests/unit/backup/harmful_relay.h"

namespace metal::backup {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class CloneTest : public BackupTest {
 protected:
  CloneTest() {
    std::signal(SIGPIPE, SIG_IGN);
    MakeCluster();
    config_.node_id = "source";
    config_.backup_memory = {32 << 20};
    StartSource();
  }
  ~CloneTest() override { StopSource(); }

  void StartSource() {
    CloneSourceParts parts{.config = config_, .clock = base::RealClock(), .events = &events_};
    parts.open_source = Source();
    if (source_engine_) parts.make_engine = source_engine_;
    parts.memory = budget_;
    source_ = std::make_unique<CloneSource>(std::move(parts));
    auto listener = transfer::Listener::Start(
        {.listen = "127.0.0.1:0",
         .serve = [this](transfer::Channel& channel) { source_->Serve(channel); }});
    ASSERT_OK(listener);
    listener_ = *std::move(listener);
  }
  void StopSource() {
    if (source_ != nullptr) source_->Stop();
    listener_.reset();
    source_.reset();
  }

  CloneRequest Request() {
    CloneRequest request;
    request.source = *transfer::Address::Parse(listener_->address());
    request.node_id = "target";
    request.target_directory = target_;
    request.postgres_major = 15;
    return request;
  }
  OperationContext TargetContext() {
    OperationContext context{config_, base::RealClock(), target_progress_};
    if (make_engine_) context.make_engine = make_engine_;
    context.memory = budget_;
    return context;
  }
  absl::StatusOr<CloneReport> RunClone(const CloneRequest& request) {
    Clone clone(request, TargetContext());
    METAL_RETURN_IF_ERROR(clone.Look());
    METAL_RETURN_IF_ERROR(clone.Open({}));
    auto report = clone.Copy([] { return absl::OkStatus(); });
    if (!report.ok()) clone.Abandon(report.status());
    return report;
  }
  void ExpectCopy() {
    const Tree source = TreeOf(config_.pg_data_dir);
    const Tree copy = TreeOf(target_);
    for (const auto& [path, contents] : source) {
      if (!IsCopied(path) || path == "postgresql.auto.conf") continue;
      ASSERT_TRUE(copy.count(path)) << path;
      EXPECT_TRUE(copy.at(path) == contents) << path;
      struct stat want {
      }, have{};
      ASSERT_EQ(stat(base::JoinPath(config_.pg_data_dir, path).c_str(), &want), 0);
      ASSERT_EQ(stat(base::JoinPath(target_, path).c_str(), &have), 0);
      if (path != "global/pg_control") {
        EXPECT_EQ(have.st_mode, want.st_mode) << path;
      }
      if (S_ISREG(want.st_mode) && path != "global/pg_control") {
        EXPECT_EQ(have.st_mtime, want.st_mtime) << path;
      }
    }
    for (const auto& [path, contents] : copy) {
      const bool ours =
          path == "backup_label" || path == "standby.signal" || path == "pg_wal/archive_status/";
      EXPECT_TRUE(ours || (source.count(path) != 0 && IsCopied(path))) << path;
    }
    EXPECT_EQ(copy.at("backup_label"), "START WAL LOCATION: 0/3000028\n");
    EXPECT_THAT(copy.at("postgresql.auto.conf"), HasSubstr("work_mem = '8MB'"));
    EXPECT_THAT(copy.at("postgresql.auto.conf"), ::testing::Not(HasSubstr("recovery_target")));
  }
  bool HasSentinel() { return base::PathExists(target_ + "/" + pg::kIncompleteSentinel); }

  const std::string target_ = dir_.File("clone");
  observe::Progress target_progress_{base::RealClock()};
  EngineFactory source_engine_;
  MemoryBudget* budget_ = nullptr;
  std::unique_ptr<CloneSource> source_;
  std::unique_ptr<transfer::Listener> listener_;
};

TEST_F(CloneTest, CopiesTheDirectory) {
  ASSERT_OK_AND_ASSIGN(const CloneReport report, RunClone(Request()));
  EXPECT_EQ(report.source_node, "source");
  EXPECT_EQ(report.files, 312u);  // without pg_control and the label, which come last
  EXPECT_EQ(report.reconnects, 0u);
  EXPECT_EQ(report.start_lsn, kTestStart);
  EXPECT_EQ(report.stop_lsn, kTestStop);
  ExpectCopy();
}

TEST_F(CloneTest, EngineAndCodecMakeNoDifference) {
  for (const auto& [engine, codec] : {std::pair("auto", "lz4"), std::pair("threads", "zstd")}) {
    config_.io_engine = engine;
    CloneRequest request = Request();
    request.codec = codec;
    request.links = 3;
    ASSERT_OK(RunClone(request)) << engine << codec;
    ExpectCopy();
    ASSERT_OK(base::RemoveTree(target_));
  }
}

TEST_F(CloneTest, GoesOnAfterConnectionsBroke) {
  // The first two connections are those of the control.
  for (const size_t share : {size_t{100}, size_t{40000}, size_t{700000}, size_t{1500000}}) {
    HarmfulRelay relay(Request().source, {SIZE_MAX, SIZE_MAX, share, share, share, share});
    CloneRequest request = Request();
    request.source = relay.address();
    SCOPED_TRACE(share);
    ASSERT_OK_AND_ASSIGN(const CloneReport report, RunClone(request));
    EXPECT_GT(relay.harmed(), 0);
    EXPECT_GT(report.reconnects, 0u);
    ExpectCopy();
    ASSERT_OK(base::RemoveTree(target_));
  }
}

// In a message of its own or in the bytes of a frame: none of it is written, and the source sends
// it again. Only what lies between the small files of a frame belongs to nobody.
TEST_F(CloneTest, DamageOnTheWayIsSeenAndSentAgain) {
  for (const auto& [codec, offset] :
       {std::pair("none", size_t{100}), std::pair("none", size_t{700000}),
        std::pair("none", size_t{2000000}), std::pair("lz4", size_t{20000}),
        std::pair("lz4", size_t{60000})}) {
    HarmfulRelay relay(Request().source, {SIZE_MAX, SIZE_MAX, offset}, HarmfulRelay::Harm::kFlip);
    CloneRequest request = Request();
    request.source = relay.address();
    request.codec = codec;
    request.links = 1;
    SCOPED_TRACE(fmt::format("{} {}", codec, offset));
    ASSERT_OK_AND_ASSIGN(const CloneReport report, RunClone(request));
    EXPECT_EQ(relay.harmed(), 1);
    EXPECT_EQ(report.reconnects, 1u);
    ExpectCopy();
    ASSERT_OK(base::RemoveTree(target_));
  }
}

TEST_F(CloneTest, CorruptPageIsNamed) {
  std::string pages = TestPages(400, 0, 2);
  pages[300 * stream::kPageSize + 5000] ^= 1;
  Put("base/1/16384", pages);
  EXPECT_THAT(RunClone(Request()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("base/1/16384 block 300")));
  EXPECT_TRUE(HasSentinel());
  // What the attempt left is no obstacle.
  Put("base/1/16384", TestPages(400, 0, 2));
  ASSERT_OK(RunClone(Request()));
  ExpectCopy();
}

// Its checksum cannot match yet; the target takes it as it is, and WAL replay replaces it.
TEST_F(CloneTest, PageThatIsBeingWrittenIsCopied) {
  std::string pages = TestPages(400, 0, 2, kTestStart.value + 1000);
  pages[300 * stream::kPageSize + 5000] ^= 1;
  Put("base/1/16384", pages);
  ASSERT_OK(RunClone(Request()));
  ExpectCopy();
}

TEST_F(CloneTest, ErrorsOfTheSourcesDiskAndServerAreTold) {
  script_.start = absl::FailedPreconditionError("wal_level is minimal");
  EXPECT_THAT(RunClone(Request()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("wal_level is minimal")));
  EXPECT_FALSE(base::PathExists(target_));
  script_.start = absl::OkStatus();
  script_.stop = absl::FailedPreconditionError("the standby was promoted");
  EXPECT_THAT(RunClone(Request()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("promoted")));
  script_.stop = absl::OkStatus();
  ASSERT_OK(RunClone(Request()));
  ExpectCopy();
}

// Each read or write in turn, until a run has no more of them.
TEST_F(CloneTest, FailingWritesAreErrorsAndLeaveNothingInTheWay) {
  for (uint64_t nth = 1;; ++nth) {
    const uint64_t before = fired_;
    UseFaultyEngine(nth, testing::FaultKind::kError, ENOSPC);
    const auto report = RunClone(Request());
    make_engine_ = nullptr;
    if (fired_ == before) {
      ASSERT_OK(report);
      break;
    }
    EXPECT_THAT(report, StatusIs(absl::StatusCode::kResourceExhausted)) << nth;
    EXPECT_TRUE(HasSentinel()) << nth;
  }
  ExpectCopy();
}

TEST_F(CloneTest, FailingReadsOfTheSourceAreToldWithTheirPlace) {
  int failed = 0;
  for (uint64_t nth = 1; nth < 2000; nth += 89) {
    const uint64_t before = fired_;
    UseFaultyEngine(nth, testing::FaultKind::kError, EIO);
    source_engine_ = make_engine_;
    make_engine_ = nullptr;
    StopSource();
    StartSource();
    const auto report = RunClone(Request());
    StopSource();  // its engine counts when it ends
    source_engine_ = nullptr;
    StartSource();
    if (fired_ == before) {
      ASSERT_OK(report);
      break;
    }
    ++failed;
    EXPECT_THAT(report, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("source"))) << nth;
  }
  EXPECT_GT(failed, 2);
  ExpectCopy();
}

TEST_F(CloneTest, SourceThatStopsIsToldAtOnce) {
  CloneRequest request = Request();
  request.rate_limit = 1 << 20;  // the clone would take seconds
  base::Thread stopper("stopper", [&] {
    while (target_progress_.Snapshot().phase != "copying files") {
      base::RealClock().Sleep(absl::Milliseconds(1));
    }
    source_->Stop();
  });
  EXPECT_THAT(RunClone(request),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("agent stops")));
  stopper.Join();
  EXPECT_TRUE(HasSentinel());
}

TEST_F(CloneTest, SourceThatIsGoneIsGivenUpAfterAWhile) {
  CloneRequest request = Request();
  request.patience = absl::Milliseconds(300);
  Clone clone(request, TargetContext());
  ASSERT_OK(clone.Look());
  ASSERT_OK(clone.Open({}));
  StopSource();
  EXPECT_THAT(clone.Copy([] { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("was not reached")));
  StartSource();
}

TEST_F(CloneTest, SourceThatWasRestartedKnowsNothing) {
  Clone clone(Request(), TargetContext());
  ASSERT_OK(clone.Look());
  ASSERT_OK(clone.Open({}));
  const std::string address = listener_->address();
  StopSource();
  CloneSourceParts parts{.config = config_, .clock = base::RealClock()};
  parts.open_source = Source();
  source_ = std::make_unique<CloneSource>(std::move(parts));
  ASSERT_OK_AND_ASSIGN(
      listener_,
      transfer::Listener::Start({.listen = address, .serve = [this](transfer::Channel& channel) {
                                   source_->Serve(channel);
                                 }}));
  EXPECT_THAT(clone.Copy([] { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("clone again")));
}

TEST_F(CloneTest, CancelledCloneTellsTheSource) {
  CloneRequest request = Request();
  request.rate_limit = 1 << 20;
  base::Thread canceller("canceller", [&] {
    while (target_progress_.Snapshot().phase != "copying files") {
      base::RealClock().Sleep(absl::Milliseconds(1));
    }
    target_progress_.RequestCancel();
  });
  EXPECT_THAT(RunClone(request), StatusIs(absl::StatusCode::kCancelled));
  canceller.Join();
  StopSource();
  EXPECT_EQ(events_.Count("clone.source_failed"), 1u);
}

TEST_F(CloneTest, ItselfIsNoSource) {
  CloneRequest request = Request();
  request.node_id = "source";
  EXPECT_THAT(RunClone(request),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("same node_id")));
  request = Request();
  request.replace = true;
  ASSERT_EQ(symlink(config_.pg_data_dir.c_str(), dir_.File("link").c_str()), 0);
  request.target_directory = dir_.File("link");
  EXPECT_THAT(RunClone(request),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("same data directory")));
  EXPECT_TRUE(base::PathExists(config_.pg_data_dir + "/PG_VERSION"));
}

TEST_F(CloneTest, OtherMajorVersionIsRefused) {
  CloneRequest request = Request();
  request.postgres_major = 17;
  EXPECT_THAT(RunClone(request),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("runs PostgreSQL 15")));
}

TEST_F(CloneTest, WhatIsThereStays) {
  dir_.Write("clone/notes.txt", "mine");
  EXPECT_THAT(RunClone(Request()), StatusIs(absl::StatusCode::kFailedPrecondition));
  CloneRequest request = Request();
  request.replace = true;  // is for clusters alone
  EXPECT_THAT(RunClone(request), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(*base::ReadFile(target_ + "/notes.txt"), "mine");
}

TEST_F(CloneTest, ReplacesACopyOfTheSameClusterOnly) {
  ASSERT_OK(RunClone(Request()));
  dir_.Write("clone/base/1/99999", "of the old cluster");
  dir_.Write("clone/postmaster.pid", "1\n");
  EXPECT_THAT(RunClone(Request()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--replace")));
  EXPECT_TRUE(base::PathExists(target_ + "/base/1/99999"));
  CloneRequest request = Request();
  request.replace = true;
  ASSERT_OK(RunClone(request));
  ExpectCopy();

  dir_.Write("clone/global/pg_control", TestControlFile(true, kTestSystem + 1));
  EXPECT_THAT(RunClone(request),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not replaced")));
  EXPECT_TRUE(base::PathExists(target_ + "/base/1/16384"));
}

TEST_F(CloneTest, ReplacesAHalfRewoundCluster) {
  ASSERT_OK(RunClone(Request()));
  ASSERT_OK(pg::WriteRewindSentinel(target_));
  EXPECT_THAT(RunClone(Request()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--replace")));
  CloneRequest request = Request();
  request.replace = true;
  ASSERT_OK(RunClone(request));
  ExpectCopy();
}

TEST_F(CloneTest, ATargetThatComesBackEndsItsOwnFirstClone) {
  const auto open = [this](Clone& clone) -> absl::Status {
    METAL_RETURN_IF_ERROR(clone.Look());
    return clone.Open({});
  };
  CloneRequest elsewhere = Request();
  elsewhere.node_id = "other";
  elsewhere.target_directory = dir_.File("other");
  Clone lost(Request(), TargetContext()), other(elsewhere, TargetContext());
  ASSERT_OK(open(lost));
  ASSERT_OK(open(other));
  elsewhere.node_id = "third";
  Clone third(elsewhere, TargetContext());
  EXPECT_THAT(open(third), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("HINT: ")));
  ASSERT_OK(RunClone(Request()));
  ExpectCopy();
  EXPECT_EQ(events_.Count("clone.source_failed"), 1u) << "the one that was lost";
  ASSERT_OK(other.Copy([] { return absl::OkStatus(); }));
}

TEST_F(CloneTest, BothSidesTakeTheirBuffersFromTheBudget) {
  MemoryBudget budget({40 << 20});
  StopSource();
  budget_ = &budget;
  StartSource();
  std::optional<MemoryShare> backup = *budget.Take({39 << 20}, {39 << 20}, target_progress_);
  bool waited = false;
  target_progress_.SetPhaseObserver([&](const std::string& phase) {
    waited |= phase.starts_with("waiting for memory");
    if (waited) backup.reset();
  });
  ASSERT_OK(RunClone(Request()));
  EXPECT_TRUE(waited);
  ExpectCopy();
  target_progress_.SetPhaseObserver({});
  StopSource();
  EXPECT_EQ(budget.free(), budget.total());
  budget_ = nullptr;
  StartSource();
}

TEST_F(CloneTest, TablespacesGoWhereTheyAreMapped) {
  const std::string version = TablespaceVersionDirectory(15, kTestCatalogVersion);
  dir_.Write("space/" + version + "/1/16500", TestPages(200, 0, 11));
  ASSERT_EQ(symlink(dir_.File("space").c_str(), dir_.File("data/pg_tblspc/16400").c_str()), 0);
  script_.tablespace_map = "16400 " + dir_.File("space") + "\n";
  // Where it is there is the source's.
  EXPECT_THAT(RunClone(Request()),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not empty")));
  CloneRequest request = Request();
  request.tablespace_mapping[16400] = dir_.File("moved");
  ASSERT_OK(RunClone(request));
  EXPECT_EQ(*base::ReadFile(target_ + "/tablespace_map"), "16400 " + dir_.File("moved") + "\n");
  EXPECT_TRUE(*base::ReadFile(dir_.File("moved/" + version + "/1/16500")) == TestPages(200, 0, 11));
  // Replaced with its tablespace, wherever the next one is put.
  dir_.Write("moved/" + version + "/1/old", "of the old cluster");
  request.replace = true;
  request.tablespace_mapping[16400] = dir_.File("elsewhere");
  ASSERT_OK(RunClone(request));
  EXPECT_FALSE(base::PathExists(dir_.File("moved/" + version)));
  EXPECT_TRUE(base::PathExists(dir_.File("elsewhere/" + version + "/1/16500")));
  request.tablespace_mapping = {{7, "/x"}};
  EXPECT_THAT(RunClone(request), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(CloneTest, StrangersAreHeardOut) {
  const auto address = Request().source;
  for (const uint8_t type : {0, 3, 9, 12, 200}) {
    ASSERT_OK_AND_ASSIGN(const auto channel,
                         transfer::Channel::Connect(address, {}, absl::Seconds(10)));
    ASSERT_OK(channel->WriteMessage(type, 1, "nonsense"));
    ASSERT_OK_AND_ASSIGN(const auto answer, channel->ReadMessage());
    EXPECT_EQ(answer.header.type, static_cast<uint8_t>(CloneMessage::kFailure));
  }
  ASSERT_OK_AND_ASSIGN(const auto channel,
                       transfer::Channel::Connect(address, {}, absl::Seconds(10)));
  ASSERT_OK(channel->Write("GET / HTTP/1.1\r\nHost: metal-agent.example\r\n\r\n"));
  EXPECT_FALSE(channel->ReadMessage().ok());
  ASSERT_OK(RunClone(Request()));
}

}  // namespace
}  // namespace metal::backup
