#include "agent/backup/restore.h"

#include <fcntl.h>
#include <sys/file.h>

#include "agent/backup/manifest_json.h"
#include "agent/backup/tablespace_map.h"
#include "agent/pg/data_directory.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;
using testing::StatusIs;

class RestoreTest : public BackupTest {
 protected:
  RestoreTest() {
    MakeCluster();
    const auto info = Backup();
    EXPECT_OK(info);
    label_ = info->label;
  }
  std::string Pack(int number = 1) const {
    return fmt::format("{}/{}/packs/{}/{}.pack", config_.repository_path, kTestSystem, label_,
                       number);
  }
  void FlipByte(const std::string& path, off_t at) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    char byte = 0;
    ASSERT_EQ(pread(fd, &byte, 1, at), 1);
    byte = static_cast<char>(byte ^ 0x40);
    ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
    close(fd);
  }
  const std::string target_ = dir_.File("restored");
  std::string label_;
};

TEST_F(RestoreTest, GivesTheFilesBackWithModesAndTimes) {
  const Tree source = TreeOf(config_.pg_data_dir);
  ASSERT_OK_AND_ASSIGN(const RestoreReport report, Restore(target_));
  EXPECT_EQ(report.files, 314u);
  const Tree restored = TreeOf(target_);
  for (const auto& [path, contents] : source) {
    if (!IsCopied(path) || path == "postgresql.auto.conf") continue;
    ASSERT_TRUE(restored.count(path)) << path;
    EXPECT_TRUE(restored.at(path) == contents) << path;
    struct stat want {
    }, have{};
    ASSERT_EQ(stat(base::JoinPath(config_.pg_data_dir, path).c_str(), &want), 0);
    ASSERT_EQ(stat(base::JoinPath(target_, path).c_str(), &have), 0);
    EXPECT_EQ(have.st_mode, want.st_mode) << path;
    if (S_ISREG(want.st_mode) && path != "global/pg_control") {
      EXPECT_EQ(have.st_mtime, want.st_mtime) << path;
    }
  }
  for (const auto& [path, contents] : restored) {
    const bool ours = path == "backup_label" || path == "backup_manifest" ||
                      path == "recovery.signal" || path == "pg_wal/archive_status/";
    EXPECT_TRUE(ours || (source.count(path) != 0 && IsCopied(path))) << path;
  }
  EXPECT_EQ(restored.at("backup_label"), "START WAL LOCATION: 0/3000028\n");
}

TEST_F(RestoreTest, WritesRecoverySettingsOverOldOnes) {
  RestoreRequest request;
  request.recovery_target = RecoveryTarget::kImmediate;
  request.settings = {{"port", "5544"}};
  ASSERT_OK(Restore(target_, request));
  const std::string conf = *base::ReadFile(target_ + "/postgresql.auto.conf");
  EXPECT_THAT(conf, HasSubstr("work_mem = '8MB'"));
  EXPECT_THAT(conf, HasSubstr("recovery_target = 'immediate'"));
  EXPECT_THAT(conf, Not(HasSubstr("recovery_target_time =")));
  EXPECT_THAT(conf, HasSubstr("port = '5544'"));
  EXPECT_THAT(conf, HasSubstr("metal-wal"));
  EXPECT_THAT(conf, Not(HasSubstr("yesterday")));
  EXPECT_TRUE(base::PathExists(target_ + "/recovery.signal"));
}

// PostgreSQL refuses an empty target while another one is set: nothing but the one in force is
// emptied, before the wanted one.
TEST_F(RestoreTest, WhatIncludedFilesSetDoesNotSteerTheCopy) {
  Put("postgresql.conf",
      "recovery_target_lsn = '0/1'\ninclude 'metal.conf'\ninclude_dir = 'conf.d'\n"
      "include_if_exists 'absent.conf'\n");
  Put("metal.conf", "recovery_target_lsn = ''\n");
  Put("conf.d/1.conf", "recovery_target_xid = 5\nrecovery_end_command = 'touch x'\n");
  Put("conf.d/2.conf", "include '../more.conf'\n");
  Put("more.conf", "recovery_min_apply_delay = 1h\nrecovery_target_inclusive = off\n");
  ASSERT_OK_AND_ASSIGN(const auto info, Backup());
  label_ = info.label;
  const std::string taken_back =
      "recovery_target_xid = ''\nrecovery_end_command = ''\nrecovery_min_apply_delay = '0'\n";
  RestoreRequest request;
  request.recovery_target = RecoveryTarget::kImmediate;
  ASSERT_OK(Restore(target_, request));
  const std::string conf = *base::ReadFile(target_ + "/postgresql.auto.conf");
  ASSERT_THAT(conf, HasSubstr(taken_back));
  EXPECT_LT(conf.find(taken_back), conf.find("recovery_target = 'immediate'"));
  EXPECT_THAT(conf, Not(HasSubstr("recovery_target_lsn")));

  request.recovery_target = RecoveryTarget::kStandby;
  const std::string standby = dir_.File("standby");
  ASSERT_OK(Restore(standby, request));
  const std::string kept = *base::ReadFile(standby + "/postgresql.auto.conf");
  EXPECT_THAT(kept, HasSubstr("recovery_target_xid = ''\n"));
  EXPECT_THAT(kept, Not(HasSubstr("recovery_min_apply_delay")));
}

TEST_F(RestoreTest, AStandbyGetsItsSignal) {
  RestoreRequest request;
  request.recovery_target = RecoveryTarget::kStandby;
  ASSERT_OK(Restore(target_, request));
  EXPECT_TRUE(base::PathExists(target_ + "/standby.signal"));
  EXPECT_FALSE(base::PathExists(target_ + "/recovery.signal"));
}

TEST_F(RestoreTest, ANonEmptyTargetIsRefusedAndNotTouched) {
  dir_.Write("restored/precious", "data");
  const Tree before = TreeOf(target_);
  const auto report = Restore(target_);
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("precious")));
  EXPECT_EQ(base::GetReason(report.status())->reason, "RESTORE_TARGET");
  EXPECT_EQ(TreeOf(target_), before);
}

TEST_F(RestoreTest, ATargetInUseIsRefused) {
  dir_.Write("restored/postmaster.pid", "1");
  EXPECT_THAT(Restore(target_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("in use")));
}

TEST_F(RestoreTest, ASecondRestoreIntoTheSameTargetIsRefusedWhileOneRuns) {
  dir_.Write("restored/metal.incomplete", "restore\nbackup\tx\n");
  const std::string lock = dir_.Write("restored/metal.incomplete.lock", "");
  const int fd = open(lock.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
  EXPECT_THAT(Restore(target_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another restore")));
  close(fd);
  EXPECT_OK(Restore(target_));
}

TEST_F(RestoreTest, LeftoversOfADeadRestoreAreReplaced) {
  dir_.Write("restored/metal.incomplete", "restore\nbackup\tx\n");
  dir_.Write("restored/base/1/half", "x");
  ASSERT_OK(Restore(target_));
  EXPECT_FALSE(base::PathExists(target_ + "/base/1/half"));
  EXPECT_FALSE(base::PathExists(target_ + "/metal.incomplete"));
}

TEST_F(RestoreTest, AnotherTasksLeftoversAreNotOurs) {
  dir_.Write("restored/metal.incomplete", "initdb\n");
  dir_.Write("restored/base/1/half", "x");
  EXPECT_THAT(Restore(target_), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_TRUE(base::PathExists(target_ + "/base/1/half"));
}

TEST_F(RestoreTest, ValidateOnlyChangesNothing) {
  RestoreRequest request;
  request.validate_only = true;
  EXPECT_OK(Restore(target_, request));
  EXPECT_FALSE(base::PathExists(target_));
  dir_.Write("restored/precious", "data");
  EXPECT_FALSE(Restore(target_, request).ok());
}

TEST_F(RestoreTest, EveryDamagedByteOfAPackIsFound) {
  struct stat status {};
  ASSERT_EQ(stat(Pack().c_str(), &status), 0);
  // A stride that meets headers and payloads of many frames.
  for (off_t at = 0; at < status.st_size; at += 19973) {
    FlipByte(Pack(), at);
    const bool in_header_padding = at >= 96 && at < 4092;
    const auto verified = Verify(label_);
    EXPECT_THAT(verified, StatusIs(absl::StatusCode::kDataLoss))
        << "byte " << at << in_header_padding;
    FlipByte(Pack(), at);
  }
  EXPECT_OK(Verify(label_));
}

TEST_F(RestoreTest, ADamagedFrameStopsTheRestoreAndKeepsTheSentinel) {
  FlipByte(Pack(), 300000);
  const auto report = Restore(target_);
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("1.pack")));
  EXPECT_TRUE(base::PathExists(target_ + "/metal.incomplete"));
  EXPECT_FALSE(base::PathExists(target_ + "/global/pg_control"));
  FlipByte(Pack(), 300000);
  EXPECT_OK(Restore(target_));
}

TEST_F(RestoreTest, ALostOrShortPackIsFoundBeforeAnythingIsWritten) {
  ASSERT_EQ(truncate(Pack().c_str(), 100000), 0);
  EXPECT_THAT(Restore(target_), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("should have")));
  ASSERT_EQ(unlink(Pack().c_str()), 0);
  EXPECT_THAT(Restore(target_), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("missing")));
  EXPECT_FALSE(base::PathExists(target_));
}

TEST_F(RestoreTest, EveryFailingRequestFailsTheRestoreOrIsOvercome) {
  struct Case {
    testing::FaultKind kind;
    int error;
    bool harmless;
  };
  for (const Case& c :
       {Case{testing::FaultKind::kError, EIO, false},
        Case{testing::FaultKind::kTornWrite, ENOSPC, false},
        Case{testing::FaultKind::kShort, 0, true}, Case{testing::FaultKind::kInterrupted, 0, true},
        Case{testing::FaultKind::kError, EINVAL, true}}) {
    int failures = 0;
    for (uint64_t nth = 1;; nth += 1 + nth / 4) {
      fired_ = 0;
      UseFaultyEngine(nth, c.kind, c.error);
      const auto report = Restore(target_);
      if (report.ok()) {
        EXPECT_EQ(*base::ReadFile(target_ + "/base/1/16384", 64 << 20), TestPages(400, 0, 2));
        ASSERT_OK(base::RemoveTree(target_));
      } else {
        ++failures;
        EXPECT_FALSE(c.harmless) << report.status();
        EXPECT_TRUE(base::PathExists(target_ + "/metal.incomplete"));
        EXPECT_FALSE(base::PathExists(target_ + "/global/pg_control"));
      }
      if (fired_ == 0) break;
    }
    EXPECT_EQ(failures > 0, !c.harmless);
  }
}

TEST_F(RestoreTest, CancelKeepsTheSentinel) {
  make_engine_ = [&](uring::EngineKind kind, uint32_t depth) {
    progress_.RequestCancel();
    return uring::MakeEngine(kind, depth);
  };
  EXPECT_THAT(Restore(target_), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_TRUE(base::PathExists(target_ + "/metal.incomplete"));
}

TEST_F(RestoreTest, MissingWalIsFoundFirst) {
  ASSERT_OK(base::RemoveTree(fmt::format("{}/{}/wal", config_.repository_path, kTestSystem)));
  const auto report = Restore(target_);
  EXPECT_THAT(report, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(base::GetReason(report.status())->reason, "WAL_MISSING");
  EXPECT_FALSE(base::PathExists(target_));
}

TEST_F(RestoreTest, TablespacesAreMapped) {
  const std::string outside = dir_.File("outside");
  dir_.Write("outside/PG_15_202209061/5/16500", TestPages(2, 0, 1));
  ASSERT_EQ(symlink(outside.c_str(), dir_.File("data/pg_tblspc/16400").c_str()), 0);
  script_.tablespace_map = "16400 " + outside + "\n";
  clock_.Advance(absl::Seconds(1));
  ASSERT_OK(Backup());
  EXPECT_THAT(Restore(target_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("16400")));
  RestoreRequest request;
  request.tablespace_mapping = {{16400, dir_.File("mapped")}};
  ASSERT_OK(Restore(target_, request));
  EXPECT_EQ(*base::ReadFile(dir_.File("mapped/PG_15_202209061/5/16500")), TestPages(2, 0, 1));
  EXPECT_EQ(*base::ReadFile(target_ + "/tablespace_map"), "16400 " + dir_.File("mapped") + "\n");
  request.tablespace_mapping = {{99, dir_.File("other")}};
  EXPECT_THAT(Restore(dir_.File("second"), request), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(RestoreTest, AWalDirectoryIsLinked) {
  RestoreRequest request;
  request.wal_directory = dir_.File("wal-disk");
  ASSERT_OK(Restore(target_, request));
  struct stat status {};
  ASSERT_EQ(lstat((target_ + "/pg_wal").c_str(), &status), 0);
  EXPECT_TRUE(S_ISLNK(status.st_mode));
  EXPECT_TRUE(base::PathExists(dir_.File("wal-disk/archive_status")));
}

TEST(RewriteTablespaceMapTest, OnlyMappedLinesChange) {
  EXPECT_EQ(RewriteTablespaceMap("16400 /a\n16401 /b\\\nc\n", {{16400, "/new\\x"}}),
            "16400 /new\\\\x\n16401 /b\\\nc\n");
  EXPECT_EQ(RewriteTablespaceMap("", {{1, "/x"}}), "");
}

}  // namespace
}  // namespace metal::backup
