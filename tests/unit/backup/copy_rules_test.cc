#include "agent/backup/copy_rules.h"

#include "gtest/gtest.h"

namespace metal::backup {
namespace {

struct Row {
  const char* path;
  bool directory;
  EntryAction action;
};

class CopyRulesTest : public ::testing::TestWithParam<Row> {};

TEST_P(CopyRulesTest, Classifies) {
  const Row& row = GetParam();
  EXPECT_EQ(row.directory ? ClassifyDirectory(row.path) : ClassifyFile(row.path), row.action)
      << row.path;
}

constexpr auto kCopy = EntryAction::kCopy;
constexpr auto kSkip = EntryAction::kSkip;
constexpr auto kEmpty = EntryAction::kKeepEmpty;

INSTANTIATE_TEST_SUITE_P(
    Directories, CopyRulesTest,
    ::testing::Values(Row{"pg_wal", true, kEmpty}, Row{"pg_dynshmem", true, kEmpty},
                      Row{"pg_notify", true, kEmpty}, Row{"pg_replslot", true, kEmpty},
                      Row{"pg_serial", true, kEmpty}, Row{"pg_snapshots", true, kEmpty},
                      Row{"pg_stat_tmp", true, kEmpty}, Row{"pg_subtrans", true, kEmpty},
                      Row{"pg_stat", true, kCopy}, Row{"pg_logical", true, kCopy},
                      Row{"pg_xact", true, kCopy}, Row{"pg_twophase", true, kCopy},
                      Row{"pg_multixact", true, kCopy}, Row{"pg_commit_ts", true, kCopy},
                      Row{"base", true, kCopy}, Row{"log", true, kCopy},
                      Row{"base/pgsql_tmp", true, kSkip}, Row{"mine/pg_wal", true, kCopy},
                      Row{"metal.initdb", true, kSkip}));

INSTANTIATE_TEST_SUITE_P(
    Files, CopyRulesTest,
    ::testing::Values(
        Row{"PG_VERSION", false, kCopy}, Row{"postgresql.conf", false, kCopy},
        Row{"postgresql.auto.conf", false, kCopy}, Row{"current_logfiles", false, kCopy},
        Row{"global/pg_control", false, EntryAction::kCopyLast},
        Row{"base/1/pg_control", false, kCopy}, Row{"global/pg_filenode.map", false, kCopy},
        Row{"postmaster.pid", false, kSkip}, Row{"postmaster.opts", false, kSkip},
        Row{"postgresql.auto.conf.tmp", false, kSkip}, Row{"current_logfiles.tmp", false, kSkip},
        Row{"global/pg_internal.init", false, kSkip},
        Row{"base/1/pg_internal.init.4711", false, kSkip}, Row{"backup_label", false, kSkip},
        Row{"tablespace_map", false, kSkip}, Row{"backup_manifest", false, kSkip},
        Row{"backup_label.old", false, kSkip}, Row{"tablespace_map.old", false, kSkip},
        Row{"backup_manifest.tmp", false, kSkip}, Row{"recovery.signal", false, kSkip},
        Row{"standby.signal", false, kSkip}, Row{"metal.incomplete", false, kSkip},
        Row{"metal.incomplete.lock", false, kSkip},
        Row{"pg_tblspc/1/PG_15_202209061/metal.restoring", false, kSkip},
        Row{".metal-probe-data", false, kSkip}, Row{"pg_tblspc/16400/.metal-probe", false, kSkip},
        Row{"metal.conf", false, kCopy}, Row{"mine/standby.signal", false, kCopy},
        Row{"base/1/t3_16399", false, kSkip}, Row{"base/1/t12_16399_fsm.1", false, kSkip},
        Row{"base/1/tables", false, kCopy}, Row{"t3_16399", false, kCopy},
        Row{"pg_tblspc/16400/PG_15_202209061/5/t3_16399", false, kSkip},
        Row{"pg_tblspc/16400/PG_15_202209061/5/16399", false, kCopy},
        Row{"base/pgsql_tmp1.0", false, kSkip}));

TEST(RelationFileTest, NamesAreParsed) {
  struct Case {
    const char* name;
    RelationFork fork;
    uint32_t segment;
  };
  for (const Case& c :
       {Case{"16384", RelationFork::kMain, 0}, Case{"16384.12", RelationFork::kMain, 12},
        Case{"16384_fsm", RelationFork::kFreeSpaceMap, 0},
        Case{"16384_vm.1", RelationFork::kVisibilityMap, 1},
        Case{"16384_init", RelationFork::kInit, 0}}) {
    const auto file = ParseRelationFile(c.name);
    ASSERT_TRUE(file.has_value()) << c.name;
    EXPECT_EQ(file->relation, "16384");
    EXPECT_EQ(file->fork, c.fork) << c.name;
    EXPECT_EQ(file->segment, c.segment) << c.name;
  }
  for (const char* name : {"", "PG_VERSION", "pg_filenode.map", "16384_", "16384_other", "16384.",
                           "16384.x", "_vm", "16384.99999999999", "t1_16384", "16384_vm_init"}) {
    EXPECT_FALSE(ParseRelationFile(name).has_value()) << name;
  }
}

TEST(RelationDirectoryTest, OnlyDatabaseDirectoriesHoldRelations) {
  for (const char* path : {"global", "base/1", "base/16384", "pg_tblspc/16400/PG_15_202209061/5"}) {
    EXPECT_TRUE(IsRelationDirectory(path)) << path;
  }
  for (const char* path :
       {"", "base", "base/1/2", "base/x", "pg_xact", "pg_tblspc", "pg_tblspc/16400",
        "pg_tblspc/16400/PG_15_202209061", "pg_tblspc/16400/other/5", "mine/1"}) {
    EXPECT_FALSE(IsRelationDirectory(path)) << path;
  }
}

}  // namespace
}  // namespace metal::backup
