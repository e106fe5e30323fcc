#include "agent/backup/backup.h"

#include <fcntl.h>

#include <algorithm>
#include <set>

#include "agent/backup/directory_walk.h"
#include "agent/backup/file_list.h"
#include "agent/backup/stored_backup.h"
#include "agent/backup/tablespace_list.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::Not;
using testing::StatusIs;

class CreateBackupTest : public BackupTest {
 protected:
  // Paths in the file list of the newest backup.
  std::set<std::string> Paths() {
    std::set<std::string> paths;
    auto backup = OpenStoredBackup(config_.repository_path, 0, "latest");
    EXPECT_OK(backup);
    auto list = OpenFileList(*backup);
    EXPECT_OK(list);
    FileListRecord record;
    do {
      const absl::Status status = (*list)->Next(record);
      EXPECT_OK(status);
      if (!status.ok()) break;
      if (record.kind == RecordKind::kFile) paths.insert(record.file.path);
      if (record.kind == RecordKind::kDirectory) paths.insert(record.file.path + "/");
    } while (record.kind != RecordKind::kEnd);
    return paths;
  }
};

TEST_F(CreateBackupTest, HoldsWhatTheRulesSay) {
  MakeCluster();
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_EQ(info.state, BackupState::kComplete);
  EXPECT_EQ(info.header.checksums, ChecksumVerdict::kClean);
  const std::set<std::string> paths = Paths();
  for (const char* there :
       {"PG_VERSION", "global/pg_control", "base/1/16384", "base/1/16384.1", "base/1/16385",
        "base/1/16390_init", "pg_wal/", "pg_wal/archive_status/", "pg_replslot/", "pg_stat_tmp/",
        "base/1/empty_dir/", "backup_label", "odd name\t100%\xc3\xa9"}) {
    EXPECT_THAT(paths, Contains(there));
  }
  for (const char* absent :
       {"postmaster.pid", "base/1/16390", "base/1/t3_16399", "base/1/pg_internal.init",
        "pg_replslot/slot/", "pg_wal/000000010000000000000003", "base/pgsql_tmp/", "tablespace_map",
        "pg_wal/summaries/"}) {
    EXPECT_THAT(paths, Not(Contains(absent)));
  }
  EXPECT_EQ(info.header.files, 314u);
}

TEST_F(CreateBackupTest, IsListedAndFound) {
  MakeCluster();
  BackupRequest request;
  request.annotations = {{"why", "a test"}};
  ASSERT_OK_AND_ASSIGN(const BackupInfo first, Backup(request));
  clock_.Advance(absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(const BackupInfo second, Backup());
  ASSERT_OK_AND_ASSIGN(const auto all, TheCatalog().List(kTestSystem));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].label, second.label);
  EXPECT_EQ(all[1].header, first.header);
  ASSERT_OK_AND_ASSIGN(const BackupInfo latest, TheCatalog().Find("backups/latest"));
  EXPECT_EQ(latest.label, second.label);
  EXPECT_THAT(TheCatalog().Find("nothing"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("HINT")));
  EXPECT_GT(first.ratio(), 1.0);
}

TEST_F(CreateBackupTest, AnnotationsAreKept) {
  MakeCluster();
  BackupRequest request;
  request.annotations = {{"ticket", "OPS-1 \n two lines"}};
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup(request));
  ASSERT_OK_AND_ASSIGN(const BackupInfo read, TheCatalog().Get(kTestSystem, info.label));
  EXPECT_EQ(read.header.annotations, request.annotations);
}

TEST_F(CreateBackupTest, EveryCodecAndEngineGivesTheSameFiles) {
  MakeCluster();
  const Tree source = TreeOf(config_.pg_data_dir);
  for (const char* engine : {"io_uring", "threads", "pread"}) {
    config_.io_engine = engine;
    if (!uring::MakeEngine(*uring::ParseEngineKind(engine), 4).ok()) continue;
    for (const auto codec :
         {stream::CodecKind::kNone, stream::CodecKind::kZstd, stream::CodecKind::kLz4}) {
      clock_.Advance(absl::Seconds(1));
      BackupRequest request;
      request.codec = codec;
      ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup(request));
      EXPECT_EQ(info.header.io_engine, engine);
      const std::string target = dir_.File("restored-" + info.label);
      ASSERT_THAT(Restore(target), IsOk());
      const Tree restored = TreeOf(target);
      for (const auto& [path, contents] : source) {
        if (!IsCopied(path) || path == "postgresql.auto.conf") continue;
        const auto found = restored.find(path);
        ASSERT_NE(found, restored.end()) << path;
        EXPECT_TRUE(found->second == contents) << path;
      }
      ASSERT_OK(base::RemoveTree(target));
    }
  }
}

TEST_F(CreateBackupTest, ACorruptPageMakesItSuspectAndIsNamed) {
  MakeCluster();
  std::string pages = TestPages(40, 131072, 3);
  pages[17 * stream::kPageSize + 6000] =
      static_cast<char>(pages[17 * stream::kPageSize + 6000] + 1);
  Put("base/1/16384.1", pages);
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_EQ(info.state, BackupState::kSuspect);
  EXPECT_EQ(info.header.corrupt_page_count, 1u);
  ASSERT_EQ(info.header.corrupt_pages.size(), 1u);
  EXPECT_EQ(info.header.corrupt_pages[0].path, "base/1/16384.1");
  EXPECT_EQ(info.header.corrupt_pages[0].block, 131072u + 17);
  EXPECT_THAT(events_.types(), Contains("backup.corrupt_page"));
  EXPECT_THAT(events_.types(), Contains("backup.suspect"));
  EXPECT_THAT(events_.types(), Not(Contains("backup.completed")));
}

TEST_F(CreateBackupTest, WithoutDataChecksumsPagesAreUnchecked) {
  MakeCluster();
  Put("global/pg_control", TestControlFile(false));
  Put("base/1/16384", std::string(5 * stream::kPageSize, 'z'));
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_EQ(info.header.checksums, ChecksumVerdict::kUnchecked);
  EXPECT_EQ(info.state, BackupState::kComplete);
}

TEST_F(CreateBackupTest, TablespacesAreCopiedOnceWithTheVersionsDirectoryOnly) {
  MakeCluster();
  const std::string outside = dir_.File("outside");
  dir_.Write("outside/PG_15_202209061/5/16500", TestPages(2, 0, 1));
  dir_.Write("outside/PG_14_202107181/5/16500", "another version's");
  dir_.Write("outside/note.txt", "not ours");
  ASSERT_EQ(symlink(outside.c_str(), dir_.File("data/pg_tblspc/16400").c_str()), 0);
  Put("inside/PG_15_202209061/5/16501", TestPages(1, 0, 1));
  ASSERT_EQ(symlink(dir_.File("data/inside").c_str(), dir_.File("data/pg_tblspc/16401").c_str()),
            0);
  Put("pg_tblspc/16402/PG_15_202209061/5/16502", TestPages(1, 0, 1));
  script_.tablespace_map = fmt::format("16400 {}\n16401 {}\n", outside, dir_.File("data/inside"));
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  const std::set<std::string> paths = Paths();
  EXPECT_THAT(paths, Contains("pg_tblspc/16400/PG_15_202209061/5/16500"));
  EXPECT_THAT(paths, Contains("pg_tblspc/16401/PG_15_202209061/5/16501"));
  EXPECT_THAT(paths, Contains("pg_tblspc/16402/PG_15_202209061/5/16502"));
  EXPECT_THAT(paths, Contains("tablespace_map"));
  for (const std::string& path : paths) {
    EXPECT_THAT(path, Not(HasSubstr("PG_14")));
    EXPECT_THAT(path, Not(HasSubstr("note.txt")));
    EXPECT_NE(path.substr(0, 7), "inside/");
  }
  EXPECT_EQ(info.header.tablespaces.size(), 2u);
  EXPECT_EQ(info.header.tablespaces.at(16400), outside);
}

TEST_F(CreateBackupTest, ATablespaceOfTheTimeOfTheCopyIsLeftToReplay) {
  MakeCluster();
  dir_.Write("outside/PG_15_202209061/5/16500", TestPages(2, 0, 1));
  dir_.Write("gone/PG_15_202209061/5/16500", TestPages(2, 0, 1));
  const auto link = [&](const char* name, const char* oid) {
    return symlink(dir_.File(name).c_str(),
                   dir_.File("data/pg_tblspc/" + std::string(oid)).c_str());
  };
  ASSERT_EQ(link("gone", "16400"), 0);
  script_.tablespace_map = "16400 " + dir_.File("gone") + "\n";
  make_engine_ = [&](uring::EngineKind kind, uint32_t depth) {
    EXPECT_EQ(link("outside", "16401"), 0);
    EXPECT_OK(base::MakeDirectories(dir_.File("data/pg_tblspc/16402/PG_15_202209061")));
    EXPECT_OK(base::RemoveTree(dir_.File("data/pg_tblspc/16400")));
    make_engine_ = nullptr;
    return uring::MakeEngine(kind, depth);
  };
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  for (const std::string& path : Paths()) {
    EXPECT_THAT(path, Not(HasSubstr("16401")));
    EXPECT_THAT(path, Not(HasSubstr("16402")));
  }
  EXPECT_THAT(info.header.tablespaces, ElementsAre(std::pair(16400u, dir_.File("gone"))));
  EXPECT_EQ(std::ranges::count(events_.types(), "backup.later_tablespace"), 2);
  EXPECT_OK(Verify(info.label));
  RestoreRequest request;
  request.tablespace_mapping = {{16400, dir_.File("mapped")}};
  request.recovery_target = RecoveryTarget::kImmediate;  // no further: the source has 16401
  EXPECT_OK(Restore(dir_.File("restored"), request));
}

TEST_F(CreateBackupTest, TablespacesOfTheMomentOfTheStartAreInListAndMap) {
  MakeCluster();
  dir_.Write("late/PG_15_202209061/5/16500", TestPages(2, 0, 1));
  ASSERT_EQ(symlink(dir_.File("late").c_str(), dir_.File("data/pg_tblspc/16401").c_str()), 0);
  // The server noted one that was dropped at once, and not yet the other.
  script_.tablespace_map = "16400 /gone\n";
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_THAT(info.header.tablespaces,
              ElementsAre(std::pair(16400u, "/gone"), std::pair(16401u, dir_.File("late"))));
  EXPECT_EQ(info.header.tablespace_map, "16400 /gone\n16401 " + dir_.File("late") + "\n");
  EXPECT_OK(Verify(info.label));
}

TEST(TablespaceMapTest, LinesAreReadAsTheyAreWritten) {
  const TablespaceList list = {{16400, "/a"}, {16401, "/b\\\n7 c"}, {16402, "/d e"}};
  std::string map;
  for (const auto& [oid, location] : list) map += TablespaceMapLine(oid, location);
  EXPECT_EQ(ParseTablespaceMap(map), list);
  EXPECT_THAT(ParseTablespaceMap("\\"), IsEmpty());
}

TEST_F(CreateBackupTest, ADanglingLinkIsRefusedByName) {
  MakeCluster();
  ASSERT_EQ(symlink("/nowhere/at/all", dir_.File("data/extra.conf").c_str()), 0);
  EXPECT_THAT(Backup(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("extra.conf")));
  EXPECT_THAT(RepositoryEntries(), IsEmpty());
}

TEST_F(CreateBackupTest, LinkedFilesAreCopiedAsFiles) {
  MakeCluster();
  dir_.Write("elsewhere.conf", "port = 1\n");
  ASSERT_EQ(symlink(dir_.File("elsewhere.conf").c_str(), dir_.File("data/linked.conf").c_str()), 0);
  ASSERT_OK(Backup());
  ASSERT_OK(Restore(dir_.File("restored")));
  EXPECT_EQ(*base::ReadFile(dir_.File("restored/linked.conf")), "port = 1\n");
}

TEST_F(CreateBackupTest, AStandbyEndsAtTheMinimumRecoveryPointOfTheCopiedControlFile) {
  MakeCluster();
  script_.from_standby = true;
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_TRUE(info.header.from_standby);
  EXPECT_EQ(info.header.stop_lsn, base::Lsn{0x3000080});
}

TEST_F(CreateBackupTest, WithoutItsWalNothingIsPublished) {
  MakeCluster();
  script_.on_stop = nullptr;
  BackupRequest request;
  request.wal_patience = absl::ZeroDuration();
  const auto info = Backup(request);
  EXPECT_THAT(info, StatusIs(absl::StatusCode::kDeadlineExceeded));
  ASSERT_TRUE(base::GetReason(info.status()).has_value());
  EXPECT_EQ(base::GetReason(info.status())->reason, "WAL_MISSING");
  EXPECT_THAT(RepositoryEntries(), IsEmpty());
  EXPECT_THAT(events_.types(), Contains("backup.failed"));
}

TEST_F(CreateBackupTest, ATornControlFileIsNotPublished) {
  MakeCluster();
  script_.on_stop = [this] { PushWal(); };
  std::string control = TestControlFile();
  control[20] = 1;
  // Damaged after the start: only the copy at the end sees it.
  BackupRequest request;
  const auto source = [&]() -> absl::StatusOr<std::unique_ptr<BackupSource>> {
    class Damaging final : public BackupSource {
     public:
      Damaging(std::string path, std::string bytes)
          : path_(std::move(path)), bytes_(std::move(bytes)) {}
      absl::StatusOr<SourceArchiving> Archiving() override {
        return SourceArchiving{false, "on", "metal-wal push %p %f", ""};
      }
      absl::StatusOr<SourceStart> Start(const SourceStartRequest&) override {
        return SourceStart{kTestSystem, 150004, false, 1, kTestStart};
      }
      absl::StatusOr<base::Lsn> CurrentLsn() override { return base::Lsn{0x4000000}; }
      absl::StatusOr<SourceStop> Stop() override { return absl::InternalError("not reached"); }
      std::string path_, bytes_;
    };
    return std::make_unique<Damaging>("", "");
  };
  // The walk itself triggers the damage: a special engine would hide what is tested here.
  make_engine_ = [&](uring::EngineKind kind, uint32_t depth) {
    Put("global/pg_control", control);
    return uring::MakeEngine(kind, depth);
  };
  EXPECT_THAT(CreateBackup(request, source, Context()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("pg_control")));
  EXPECT_THAT(RepositoryEntries(), IsEmpty());
}

TEST_F(CreateBackupTest, TwoWritersDoNotMeet) {
  MakeCluster();
  ASSERT_OK_AND_ASSIGN(const auto repository,
                       store::Repository::OpenOrCreate(config_.repository_path));
  ASSERT_OK_AND_ASSIGN(const base::UniqueFd lock, repository.LockForBackup(kTestSystem));
  EXPECT_THAT(Backup(), StatusIs(absl::StatusCode::kAborted, HasSubstr("another process")));
}

TEST_F(CreateBackupTest, CancelLeavesNothing) {
  MakeCluster();
  make_engine_ = [&](uring::EngineKind kind, uint32_t depth) {
    progress_.RequestCancel();
    return uring::MakeEngine(kind, depth);
  };
  EXPECT_THAT(Backup(), StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(RepositoryEntries(), IsEmpty());
}

TEST_F(CreateBackupTest, GarbageOfDeadRunsIsRemovedAndBackupsStay) {
  MakeCluster();
  ASSERT_OK_AND_ASSIGN(const BackupInfo first, Backup());
  const std::string system = fmt::format("repository/{}/", kTestSystem);
  dir_.Write(system + "backups/dead/files.zst", "x");
  dir_.Write(system + "backups/dead/manifest.tmp", "x");
  dir_.Write(system + "packs/dead/1.pack", "x");
  dir_.Write(system + "packs/" + first.label + "/99.pack", "x");
  clock_.Advance(absl::Seconds(5));
  ASSERT_OK_AND_ASSIGN(const BackupInfo second, Backup());
  EXPECT_THAT(RepositoryEntries(), ElementsAre("backups/" + first.label, "backups/" + second.label,
                                               "packs/" + first.label, "packs/" + second.label));
  EXPECT_FALSE(base::PathExists(dir_.File(system + "packs/" + first.label + "/99.pack")));
  EXPECT_OK(Verify(first.label));
}

TEST_F(CreateBackupTest, ADamagedManifestKeepsEveryPack) {
  MakeCluster();
  ASSERT_OK_AND_ASSIGN(const BackupInfo first, Backup());
  const std::string system = fmt::format("repository/{}/", kTestSystem);
  dir_.Write(system + "backups/" + first.label + "/manifest", "damaged");
  clock_.Advance(absl::Seconds(5));
  ASSERT_OK(Backup());
  EXPECT_TRUE(base::PathExists(dir_.File(system + "packs/" + first.label + "/1.pack")));
}

TEST_F(CreateBackupTest, ALevelThatTheCodecDoesNotHaveIsRefusedBeforeAnythingStarts) {
  MakeCluster();
  BackupRequest request;
  request.level = 77;
  EXPECT_THAT(Backup(request), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(base::PathExists(config_.repository_path));
}

// A file that changes its size while it is copied.
class MovingFileTest : public CreateBackupTest {
 protected:
  // Changes the file when the nth read of the copy is submitted.
  void ChangeAtRead(uint64_t nth, std::function<void()> change) {
    make_engine_ = [nth, change](uring::EngineKind kind,
                                 uint32_t depth) -> absl::StatusOr<uring::EngineChoice> {
      class Trigger final : public uring::IoEngine {
       public:
        Trigger(std::unique_ptr<uring::IoEngine> inner, uint64_t at, std::function<void()> act)
            : inner_(std::move(inner)), at_(at), act_(std::move(act)) {}
        std::string_view name() const override { return inner_->name(); }
        uint32_t depth() const override { return inner_->depth(); }
        uint32_t in_flight() const override { return inner_->in_flight(); }
        void Submit(uring::IoRequest* request) override {
          if (request->op == uring::IoOp::kRead && ++reads_ == at_) act_();
          inner_->Submit(request);
        }
        absl::Status Reap(std::vector<uring::IoRequest*>& done, absl::Duration timeout) override {
          return inner_->Reap(done, timeout);
        }
        void Wake() override { inner_->Wake(); }

       private:
        std::unique_ptr<uring::IoEngine> inner_;
        const uint64_t at_;
        const std::function<void()> act_;
        uint64_t reads_ = 0;
      };
      auto choice = uring::MakeEngine(kind, depth);
      if (!choice.ok()) return choice.status();
      return uring::EngineChoice{std::make_unique<Trigger>(std::move(choice->engine), nth, change),
                                 ""};
    };
  }
};

TEST_F(MovingFileTest, AShrunkRelationIsStoredWithItsWholePages) {
  const std::string path = dir_.File("data/base/1/16384");
  for (uint64_t nth = 1; nth <= 8; ++nth) {
    Put("PG_VERSION", "15\n");
    Put("global/pg_control", TestControlFile());
    Put("base/1/16384", TestPages(400, 0, 2));
    const uint64_t left = 100 * stream::kPageSize + 100;  // inside a page
    ChangeAtRead(nth, [&] { ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(left)), 0); });
    clock_.Advance(absl::Seconds(1));
    ASSERT_OK(Backup());
    const std::string target = dir_.File("restored");
    ASSERT_OK(Restore(target));
    const std::string restored = *base::ReadFile(target + "/base/1/16384", 64 << 20);
    EXPECT_EQ(restored.size() % stream::kPageSize, 0u);
    EXPECT_TRUE(restored == TestPages(400, 0, 2).substr(0, restored.size())) << "at read " << nth;
    EXPECT_GE(restored.size(), 100 * stream::kPageSize);
    ASSERT_OK(base::RemoveTree(target));
  }
}

TEST_F(MovingFileTest, AGrownFileIsStoredWithItsSizeAtOpen) {
  MakeCluster();
  const std::string before = TestPages(400, 0, 2);
  ChangeAtRead(1, [&] { Put("base/1/16384", before + TestPages(50, 400, 2)); });
  ASSERT_OK(Backup());
  ASSERT_OK(Restore(dir_.File("restored")));
  const std::string restored = *base::ReadFile(dir_.File("restored/base/1/16384"), 64 << 20);
  // Which of the two depends on whether the file was opened before the first read.
  EXPECT_TRUE(restored == before || restored == before + TestPages(50, 400, 2));
}

TEST_F(MovingFileTest, AServerThatWasRestartedEndsTheBackup) {
  MakeCluster();
  ChangeAtRead(3, [&] {
    Put("postmaster.pid", "4712\n/data\n1795313800\n5432\n");
    clock_.Advance(absl::Minutes(1));
  });
  EXPECT_THAT(Backup(), StatusIs(absl::StatusCode::kAborted, HasSubstr("restarted")));
  EXPECT_THAT(RepositoryEntries(), IsEmpty());
}

TEST_F(MovingFileTest, VanishedFilesAreLeftOut) {
  MakeCluster();
  ChangeAtRead(1, [&] {
    for (int i = 0; i < 300; ++i)
      unlink(dir_.File(fmt::format("data/base/1/{}", 20000 + i)).c_str());
  });
  ASSERT_OK_AND_ASSIGN(const BackupInfo info, Backup());
  EXPECT_LT(info.header.files, 314u);
  EXPECT_OK(Restore(dir_.File("restored")));
}

TEST_F(CreateBackupTest, EveryFailingRequestFailsTheBackupOrIsOvercome) {
  MakeCluster();
  struct Case {
    testing::FaultKind kind;
    int error;
    bool harmless;
  };
  for (const Case& c :
       {Case{testing::FaultKind::kError, EIO, false},
        Case{testing::FaultKind::kError, ENOSPC, false},
        Case{testing::FaultKind::kTornWrite, EIO, false}, Case{testing::FaultKind::kShort, 0, true},
        Case{testing::FaultKind::kInterrupted, 0, true},
        Case{testing::FaultKind::kError, EINVAL, true}}) {
    int failures = 0;
    for (uint64_t nth = 1;; nth += 1 + nth / 4) {
      fired_ = 0;
      UseFaultyEngine(nth, c.kind, c.error);
      clock_.Advance(absl::Seconds(1));
      const auto info = Backup();
      if (fired_ == 0) {
        EXPECT_OK(info);
        break;
      }
      if (info.ok()) {
        make_engine_ = nullptr;
        EXPECT_OK(Verify(info->label));
      } else {
        ++failures;
        EXPECT_FALSE(c.harmless) << info.status();
        EXPECT_THAT(std::string(info.status().message()),
                    HasSubstr(config_.pg_data_dir.substr(0, 8)));
        for (const std::string& entry : RepositoryEntries())
          EXPECT_EQ(entry.find("latest"), std::string::npos);
      }
      ASSERT_OK(
          base::RemoveTree(config_.repository_path + fmt::format("/{}/backups", kTestSystem)));
      ASSERT_OK(base::RemoveTree(config_.repository_path + fmt::format("/{}/packs", kTestSystem)));
    }
    EXPECT_EQ(failures > 0, !c.harmless);
  }
}

}  // namespace
}  // namespace metal::backup
