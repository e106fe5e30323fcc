// What a backup asks of the archive before it copies, and how it waits afterwards.
#include "agent/backup/backup_wal.h"

#include <thread>

#include "agent/base/thread.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

using BackupWalTest = BackupTest;

TEST(CheckArchivingTest, OnlyWhatReachesTheRepositoryWillDo) {
  const std::string own = "/opt/mw push --socket=/s %p %f";
  struct Case {
    SourceArchiving archiving;
    const char* refusal;  // null: allowed
  };
  for (const Case& each : {
           Case{{false, "on", own, ""}, nullptr},
           Case{{false, "always", "'/a b/metal-wal' push --socket=/s %p %f", ""}, nullptr},
           Case{{false, "off", "(disabled)", ""}, "archive_mode is off"},
           Case{{false, "on", "/bin/true", ""}, "archive_command is \"/bin/true\""},
           Case{{false, "on", "", ""}, "archive_command is \"\""},
           Case{{false, "on", "metal-wal fetch %f %p", ""}, "archive_command"},
           Case{{false, "on", own, "basic_archive"}, "archive_library basic_archive"},
           Case{{true, "on", "/bin/true", ""}, nullptr},  // its primary archives
           Case{{true, "off", "(disabled)", ""}, nullptr},
           Case{{true, "always", "/bin/true", ""}, "archive_command"},
       }) {
    const absl::Status status = CheckArchiving(each.archiving, own);
    if (each.refusal == nullptr) {
      EXPECT_OK(status) << each.archiving.command;
    } else {
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                                   AllOf(HasSubstr(each.refusal), HasSubstr("HINT"))));
    }
  }
}

TEST_F(BackupWalTest, AServerThatArchivesElsewhereIsRefusedBeforeTheCopy) {
  MakeCluster();
  script_.archiving.command = "/bin/true";
  script_.start = absl::InternalError("it was started");
  EXPECT_THAT(Backup(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("/bin/true")));
  EXPECT_THAT(RepositoryEntries(), IsEmpty());
}

TEST_F(BackupWalTest, AStandbyThatWaitsSaysThatThePrimaryMustSwitch) {
  MakeCluster();
  script_.from_standby = true;
  script_.on_stop = nullptr;
  BackupRequest request;
  request.wal_patience = absl::ZeroDuration();
  EXPECT_THAT(Backup(request), StatusIs(absl::StatusCode::kDeadlineExceeded,
                                        HasSubstr("pg_switch_wal() on the primary")));
  EXPECT_THAT(events_.types(), Contains("backup.waiting_for_switch"));
}

TEST_F(BackupWalTest, ABacklogThatShrinksIsWaitedFor) {
  const absl::Duration patience = absl::Minutes(10);
  WalRange range;
  range.system_identifier = kTestSystem;
  range.timeline = 1;
  range.from = base::Lsn{3 * kTestSegmentSize};
  range.to = base::Lsn{7 * kTestSegmentSize};
  range.segment_size = kTestSegmentSize;
  absl::Status waited;
  base::Thread waiter("waiter",
                      [&] { waited = archive_->WaitForSegments(range, patience, progress_); });
  for (uint64_t i = 3; i < 7; ++i) {
    clock_.Advance(patience * 0.9);
    TestSegment segment;
    segment.start = base::Lsn{i * kTestSegmentSize};
    ASSERT_OK(archive_->PushBytes(segment.Name(), BytesOf(segment.Bytes()), kTestSystem));
    while (progress_.Snapshot().done_bytes < (i - 2) * kTestSegmentSize) std::this_thread::yield();
  }
  waiter.Join();
  EXPECT_OK(waited);
}

}  // namespace
}  // namespace metal::backup
