#include "agent/pg/rewind_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::IsOkAndHolds;
using ::testing::ElementsAre;

constexpr uint64_t kSegment = 16 * base::kMiB;

class RewindFilesTest : public ::testing::Test {
 protected:
  RewindFilesTest() {
    dir_.Write("data/PG_VERSION", "15\n");
    dir_.Write("data/global/pg_control", "old control");
    dir_.Write("data/postgresql.conf", "ours\n");
    dir_.Write("data/postgresql.auto.conf", "# x\nprimary_conninfo = 'host=a'\nwork_mem = '8MB'\n");
    dir_.Write("data/server.key", "our key");
    dir_.Write("data/backup_label.old", "state");
    dir_.Write("data/postmaster.opts", "state");
    dir_.Write("data/pg_wal/000000010000000000000001", "one");
    dir_.Write("data/pg_wal/000000010000000000000002", "two");
    dir_.Write("data/pg_wal/000000010000000000000003", "three");
    dir_.Write("data/pg_wal/000000010000000000000004", "recycled");
    dir_.Write("data/pg_wal/00000001.history", "history");
    dir_.Write("data/pg_wal/archive_status/000000010000000000000001.done", "");
  }
  KeptWal Wal() {
    return *FindRewindWal(data_, {base::Lsn{kSegment * 2 + 96}, base::Lsn{kSegment * 3 + 8}},
                          kSegment);
  }
  std::string Read(const std::string& name) {
    return base::ReadFile(dir_.File(name)).value_or("<none>");
  }

  testing::TempDir dir_;
  std::string data_ = dir_.File("data"), keep_ = dir_.File("state/rewind");
};

TEST_F(RewindFilesTest, WalIsNeededFromTheSegmentOfTheCheckpointOn) {
  EXPECT_THAT(Wal().files, ElementsAre("00000001.history", "000000010000000000000002",
                                       "000000010000000000000003"));
  EXPECT_EQ(Wal().bytes.value, 7u + 3 + 5);
}

TEST_F(RewindFilesTest, WhatThePgRewindChangedIsPutBack) {
  ASSERT_OK(KeepForRewind(data_, Wal(), keep_));
  // As pg_rewind leaves it.
  dir_.Write("data/postgresql.conf", "of the source\n");
  dir_.Write("data/server.key", "of the source");
  dir_.Write("data/postmaster.opts", "newer");
  dir_.Write("data/backup_label", "from here on");
  dir_.Write("data/global/pg_control", "new control");
  dir_.Write("data/pg_wal/000000010000000000000002", "of the source");
  ASSERT_EQ(unlink(dir_.File("data/pg_wal/000000010000000000000003").c_str()), 0);

  for (int i = 0; i < 2; ++i) ASSERT_OK(PutBackWal(keep_, data_));
  EXPECT_EQ(Read("data/global/pg_control"), "old control");
  EXPECT_EQ(Read("data/pg_wal/000000010000000000000002"), "two");
  EXPECT_EQ(Read("data/pg_wal/000000010000000000000003"), "three");
  EXPECT_FALSE(base::PathExists(dir_.File("data/backup_label")));
  EXPECT_EQ(Read("data/postgresql.conf"), "of the source\n");

  for (int i = 0; i < 2; ++i) ASSERT_OK(PutBackConfiguration(keep_, data_));
  EXPECT_EQ(Read("data/postgresql.conf"), "ours\n");
  EXPECT_EQ(Read("data/server.key"), "our key");
  EXPECT_EQ(Read("data/postmaster.opts"), "newer");
}

TEST_F(RewindFilesTest, SharedWalThatIsGoneIsPutBackAndNothingElse) {
  dir_.Write("data/pg_wal/000000020000000000000002", "another timeline");
  ASSERT_OK(KeepForRewind(data_, Wal(), keep_));
  for (const char* name :
       {"000000010000000000000002", "000000010000000000000003", "000000020000000000000002"}) {
    ASSERT_EQ(unlink(dir_.File(std::string("data/pg_wal/") + name).c_str()), 0);
  }
  // Timeline 1 ended within segment 3, whose rest is the target's own; timeline 2 is not of the
  // source's history.
  const std::vector<TimelineEnd> history = {{1, base::Lsn{kSegment * 3 + 8}}};
  EXPECT_THAT(PutBackSharedWal(keep_, data_, history, kSegment), IsOkAndHolds(1));
  EXPECT_EQ(Read("data/pg_wal/000000010000000000000002"), "two");
  EXPECT_EQ(Read("data/pg_wal/000000010000000000000003"), "<none>");
  EXPECT_EQ(Read("data/pg_wal/000000020000000000000002"), "<none>");
  EXPECT_THAT(PutBackSharedWal(keep_, data_, history, kSegment), IsOkAndHolds(0));
}

TEST_F(RewindFilesTest, NothingOfAnEarlierRewindIsKept) {
  dir_.Write("state/rewind/wal/000000010000000000000009", "old");
  dir_.Write("state/rewind/config/stale.conf", "old");
  ASSERT_OK(KeepForRewind(data_, Wal(), keep_));
  EXPECT_EQ(Read("state/rewind/wal/000000010000000000000009"), "<none>");
  EXPECT_EQ(Read("state/rewind/config/stale.conf"), "<none>");
}

TEST_F(RewindFilesTest, EveryFailureOfTheDiskIsAnErrorUntilNoneIsLeft) {
  const KeptWal wal = Wal();
  int at = 1;
  for (bool fired = true; fired; ++at) {
    absl::Status kept;
    {
      testing::FileFaults faults(dir_.path(), {at, testing::FileFaultKind::kError, ENOSPC});
      kept = KeepForRewind(data_, wal, keep_);
      fired = faults.fired();
      EXPECT_TRUE(kept.ok() || fired) << kept;
    }
    // The end of a file that was only read may fail: then all is there all the same.
    if (!kept.ok()) continue;
    EXPECT_EQ(Read("state/rewind/pg_control"), "old control");
    EXPECT_EQ(Read("state/rewind/config/postgresql.conf"), "ours\n");
    EXPECT_EQ(Read("state/rewind/wal/000000010000000000000003"), "three");
  }
  EXPECT_GT(at, 10);
  EXPECT_EQ(Read("data/pg_wal/000000010000000000000003"), "three");
}

// Power lost at any moment of putting back: repeating it gives the same directory.
TEST_F(RewindFilesTest, PuttingBackMayBeCutOffAnywhere) {
  ASSERT_OK(KeepForRewind(data_, Wal(), keep_));
  int at = 1;
  for (bool fired = true; fired; ++at) {
    dir_.Write("data/global/pg_control", "new control");
    dir_.Write("data/pg_wal/000000010000000000000002", "of the source");
    dir_.Write("data/backup_label", "x");
    {
      testing::FileFaults faults(data_, {at, testing::FileFaultKind::kPowerLoss});
      const absl::Status put = PutBackWal(keep_, data_);
      fired = faults.fired();
      EXPECT_TRUE(put.ok() || fired) << put;
    }
    ASSERT_OK(PutBackWal(keep_, data_));
    EXPECT_EQ(Read("data/global/pg_control"), "old control");
    EXPECT_EQ(Read("data/pg_wal/000000010000000000000002"), "two");
    EXPECT_FALSE(base::PathExists(dir_.File("data/backup_label")));
  }
  EXPECT_GT(at, 5);
}

TEST_F(RewindFilesTest, AFetchedSegmentIsThereWholeOrNotAtAll) {
  const std::string name = "000000010000000000000000";
  const std::string bytes = "from the archive";
  const auto half = [&](const SegmentSink& sink) -> absl::Status {
    EXPECT_OK(sink(std::as_bytes(std::span(bytes).first(4))));
    return absl::NotFoundError("gone");
  };
  EXPECT_FALSE(StoreSegment(data_, name, half).ok());
  EXPECT_EQ(Read("data/pg_wal/" + name), "<none>");
  EXPECT_EQ(Read("data/pg_wal/xlogtemp.metal"), "<none>");
  ASSERT_OK(StoreSegment(
      data_, name, [&](const SegmentSink& sink) { return sink(std::as_bytes(std::span(bytes))); }));
  EXPECT_EQ(Read("data/pg_wal/" + name), bytes);
}

TEST_F(RewindFilesTest, AHistoryIsWrittenOnce) {
  ASSERT_OK(WriteTimelineHistory(data_, 2, "1\t0/3000000\tx\n"));
  ASSERT_OK(WriteTimelineHistory(data_, 2, "other"));
  EXPECT_EQ(Read("data/pg_wal/00000002.history"), "1\t0/3000000\tx\n");
  ASSERT_OK(WriteTimelineHistory(data_, 1, ""));
  EXPECT_EQ(Read("data/pg_wal/00000001.history"), "history");
}

}  // namespace
}  // namespace metal::pg
