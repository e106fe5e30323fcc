#include "agent/disk/sources/postgres_log.h"

#include <cerrno>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/simulated_clock.h"

namespace metal::disk {
namespace {

using enum FaultClass;
using metal::testing::SimulatedClock;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::SizeIs;

struct Case {
  const char* message;
  FaultClass fault_class;
  const char* role;
  std::optional<int> error_number{};
};

// Messages of PostgreSQL 13 to 18.
const Case kCases[] = {
    {"could not fsync file \"base/16384/16385\": Input/output error", kFsyncError, "data", EIO},
    {"could not fdatasync file \"pg_wal/00000001000000000000000A\": No data available", kFsyncError,
     "wal", ENODATA},
    {"could not fsync file \"pg_tblspc/16390/PG_17_202406281/5/2619\": Input/output error",
     kFsyncError, "tablespace:16390", EIO},
    {"could not flush dirty data: Input/output error", kFsyncError, "data", EIO},
    {"could not write to log file \"000000010000000000000001\" at offset 8192, length 8192: "
     "Input/output error",
     kWriteError, "wal", EIO},
    {"could not write to log file 000000010000000000000001 at offset 8192, length 8192: No space "
     "left on device",
     kFull, "wal", ENOSPC},
    {"could not write block 17 in file \"base/5/2619\": Input/output error", kWriteError, "data",
     EIO},
    {"could not write blocks 17..18 in file \"base/5/2619\": Input/output error", kWriteError,
     "data", EIO},
    {"could not extend file \"base/5/2619\": No space left on device", kFull, "data", ENOSPC},
    {"could not extend file \"base/5/2619\" with FileFallocate(): Input/output error", kWriteError,
     "data", EIO},
    {"could not write to file \"pg_wal/xlogtemp.123\": No space left on device", kFull, "wal",
     ENOSPC},
    {"could not write to file \"base/pgsql_tmp/pgsql_tmp123.0\": Read-only file system",
     kFilesystemShutdown, "data", EROFS},
    {"could not read block 17 in file \"base/5/2619\": Input/output error", kMediaError, "data",
     EIO},
    {"could not read blocks 17..24 in file \"base/5/2619\": No data available", kMediaError, "data",
     ENODATA},
    {"could not read block 17 in file \"base/5/2619\": read only 0 of 8192 bytes", kCorruption,
     "data"},
    {"could not read from WAL segment 000000010000000000000001, offset 8192: Input/output error",
     kMediaError, "wal", EIO},
    {"could not open file \"base/5/2619\": Structure needs cleaning", kCorruption, "data", EUCLEAN},
    {"invalid page in block 17 of relation base/5/2619", kCorruption, "data"},
    {"invalid page in block 17 of relation pg_tblspc/16390/PG_17_202406281/5/2619", kCorruption,
     "tablespace:16390"},
    {"invalid page in block 17 of relation \"base/5/2619\"; zeroing out page", kCorruption, "data"},
    {"page verification failed, calculated checksum 1 but expected 2", kCorruption, "data"},
    {"could not rename file \"pg_wal/xlogtemp.1\" to \"pg_wal/000000010000000000000001\": "
     "Input/output error",
     kWriteError, "wal", EIO},
    {"could not link file \"pg_wal/xlogtemp.1\" to \"x\": Input/output error", kMediaError, "wal",
     EIO},
    {"could not load pg_hba.conf: Input/output error", kMediaError, "data", EIO},
};

TEST(PostgresLogTest, EveryMessageSaysWhatItMeansAndWhere) {
  for (const Case& expected : kCases) {
    SCOPED_TRACE(expected.message);
    const auto finding = ClassifyPostgresMessage(expected.message);
    ASSERT_TRUE(finding.has_value());
    EXPECT_EQ(finding->fault_class, expected.fault_class);
    EXPECT_EQ(RoleOfPath(finding->path), expected.role);
    EXPECT_EQ(finding->error_number, expected.error_number);
  }
}

TEST(PostgresLogTest, WhatIsNotADisksFaultIsNotTold) {
  for (const char* message :
       {"could not open file \"pg_wal/000000010000000000000001\": No such file or directory",
        "could not open file \"x\": Permission denied",
        "could not receive data from client: Connection timed out",
        "could not receive data from WAL stream: server closed the connection unexpectedly",
        "could not resize shared memory segment \"/PostgreSQL.123\" to 1048576 bytes: No space "
        "left on device",
        "could not create semaphores: No space left on device",
        "could not open file \"/mnt/import/rows.csv\" for reading: Input/output error",
        "could not read file \"/mnt/import/rows.csv\": Input/output error",
        "archive command failed with exit code 1", "database system is ready to accept connections",
        "invalid record length at 0/3000060: expected at least 24, got 0", ""}) {
    EXPECT_FALSE(ClassifyPostgresMessage(message).has_value()) << message;
  }
}

TEST(PostgresLogTest, LinesAreSplitAtTheirOwnLevel) {
  const auto panic =
      SplitPostgresLine("2026-11-26 07:00:00.000 UTC [123] PANIC:  could not fsync file \"x\": y");
  ASSERT_TRUE(panic.has_value());
  EXPECT_EQ(panic->level, "PANIC");
  EXPECT_EQ(panic->pid, 123);
  EXPECT_EQ(panic->message, "could not fsync file \"x\": y");
  const auto quoted = SplitPostgresLine("[7] me@db psql ERROR:  PANIC:  could not fsync");
  EXPECT_EQ(quoted->level, "ERROR");
  EXPECT_EQ(quoted->message, "PANIC:  could not fsync");
  EXPECT_EQ(SplitPostgresLine("LOG:  x")->pid, 0);
  for (const char* line : {"", "[7] STATEMENT:  select 'PANIC:  x'", "[7] DETAIL:  ERROR:  x",
                           "\tcontinued", "[7] HINT:  Check free disk space."}) {
    EXPECT_FALSE(SplitPostgresLine(line).has_value()) << line;
  }
}

class PostgresLogJudgeTest : public ::testing::Test {
 protected:
  Findings Say(const std::string& line) {
    Findings findings;
    judge_.OnLine(line, {"data", "wal"}, {.time = clock_.Now(), .monotonic = clock_.Monotonic()},
                  findings);
    return findings;
  }
  SimulatedClock clock_;
  PostgresLogJudge judge_;
};

TEST_F(PostgresLogJudgeTest, ReadsAndPagesAreEvidenceAtOnce) {
  const Findings findings =
      Say("[9] me@db psql ERROR:  could not read block 17 in file "
          "\"pg_tblspc/16390/PG_17_202406281/5/2619\": Input/output error");
  ASSERT_THAT(findings.evidence, SizeIs(1));
  EXPECT_EQ(findings.evidence[0].fault_class, kMediaError);
  EXPECT_EQ(findings.evidence[0].witness, Witness::kPostgresLog);
  EXPECT_EQ(findings.evidence[0].role, "data");  // no such tablespace is watched
  EXPECT_THAT(findings.evidence[0].error_number, Optional(EIO));
  EXPECT_TRUE(findings.evidence[0].hearsay) << "a session can raise such an error itself";
  ASSERT_THAT(findings.events, SizeIs(1));
  EXPECT_EQ(findings.events[0].type, "disk.postgres_line");
  EXPECT_EQ(findings.events[0].attributes.at("class"), "media_error");
}

TEST_F(PostgresLogJudgeTest, APanicCountsOnceItsProcessAborted) {
  EXPECT_THAT(Say("[123] me@db psql PANIC:  could not fdatasync file "
                  "\"pg_wal/00000001000000000000000A\": Input/output error")
                  .evidence,
              IsEmpty());
  EXPECT_THAT(
      Say("[1] LOG:  server process (PID 124) was terminated by signal 6: Aborted").evidence,
      IsEmpty());
  EXPECT_THAT(Say("[1] LOG:  server process (PID 123) was terminated by signal 9: Killed").evidence,
              IsEmpty());
  const Findings findings =
      Say("[1] LOG:  server process (PID 123) was terminated by signal 6: Aborted");
  ASSERT_THAT(findings.evidence, SizeIs(1));
  EXPECT_EQ(findings.evidence[0].fault_class, kFsyncError);
  EXPECT_EQ(findings.evidence[0].role, "wal");
  EXPECT_FALSE(findings.evidence[0].hearsay);
  EXPECT_THAT(
      Say("[1] LOG:  server process (PID 123) was terminated by signal 6: Aborted").evidence,
      IsEmpty());
}

TEST_F(PostgresLogJudgeTest, APanicLongAgoExplainsNoLaterEnd) {
  Say("[123] PANIC:  could not fsync file \"base/5/2619\": Input/output error");
  clock_.Advance(absl::Minutes(1));
  EXPECT_THAT(
      Say("[1] LOG:  checkpointer process (PID 123) was terminated by signal 6: Aborted").evidence,
      IsEmpty());
}

TEST_F(PostgresLogJudgeTest, WhatAnySessionCouldRaiseFencesNothing) {
  const Findings findings =
      Say("[9] me@db psql ERROR:  could not fsync file \"base/5/2619\": Input/output error");
  EXPECT_THAT(findings.evidence, IsEmpty());
  EXPECT_THAT(findings.events, SizeIs(1));
  EXPECT_THAT(Say("[1] LOG:  server process (PID 9) was terminated by signal 6: Aborted").evidence,
              IsEmpty());
}

TEST_F(PostgresLogJudgeTest, AStormIsFewEvents) {
  size_t events = 0;
  for (int i = 0; i < 50; ++i) {
    events += Say("[9] ERROR:  could not extend file \"base/5/2619\": No space left on device")
                  .events.size();
  }
  EXPECT_EQ(events, 5u);
  clock_.Advance(absl::Minutes(2));
  Findings findings;
  judge_.Tick({.time = clock_.Now(), .monotonic = clock_.Monotonic()}, findings);
  ASSERT_THAT(findings.events, SizeIs(1));
  EXPECT_EQ(findings.events[0].attributes.at("left_out"), "45");
}

TEST(ChecksumJudgeTest, OnlyGrowthIsEvidence) {
  ChecksumJudge judge;
  EXPECT_FALSE(judge.Observe(4, absl::UnixEpoch()).has_value());  // of before
  EXPECT_FALSE(judge.Observe(4, absl::UnixEpoch()).has_value());
  const auto evidence = judge.Observe(6, absl::UnixEpoch());
  ASSERT_TRUE(evidence.has_value());
  EXPECT_EQ(evidence->fault_class, kCorruption);
  EXPECT_EQ(evidence->witness, Witness::kChecksums);
  EXPECT_THAT(evidence->delta, Optional(2));
  EXPECT_FALSE(judge.Observe(0, absl::UnixEpoch()).has_value());  // statistics were reset
  EXPECT_TRUE(judge.Observe(1, absl::UnixEpoch()).has_value());
}

}  // namespace
}  // namespace metal::disk
