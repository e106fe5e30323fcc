#include "agent/pg/config_check.h"

#include "gmock/gmock.h"

namespace metal::pg {
namespace {

TEST(DescribeConfigTest, RowsAreRead) {
  const auto infos = ParseDescribeConfig(
      "archive_mode\tpostmaster\tWrite-Ahead Log / Archiving\tENUM\toff\t\t\tAllows "
      "archiving.\tMore.\n"
      "fsync\tsighup\tWrite-Ahead Log / Settings\tBOOLEAN\tTRUE\t\t\tForces sync.\t\n"
      "work_mem\tuser\tResource Usage / Memory\tINTEGER\t4096\t64\t2147483647\tSets memory.\t\n"
      "broken line\n");
  ASSERT_EQ(infos.size(), 3u);
  EXPECT_EQ(infos[0].name, "archive_mode");
  EXPECT_EQ(infos[0].context, "postmaster");
  EXPECT_EQ(infos[0].type, "enum");
  EXPECT_EQ(infos[1].type, "bool");
  EXPECT_EQ(infos[1].boot_value, "on");
  EXPECT_EQ(infos[2].min_value, "64");
  EXPECT_EQ(infos[2].max_value, "2147483647");
  EXPECT_EQ(infos[2].description, "Sets memory.");
}

TEST(PostgresReasonTest, TheErrorLineWithDetailAndHintIsTheReason) {
  EXPECT_EQ(
      PostgresReason(
          "2026-11-22 03:00:00 UTC [1] FATAL:  invalid value for parameter \"work_mem\": \"x\"\n"
          "2026-11-22 03:00:00 UTC [1] HINT:  Valid units are \"B\".\n"),
      "invalid value for parameter \"work_mem\": \"x\". HINT: Valid units are \"B\".");
  EXPECT_EQ(PostgresReason("LOG:  invalid value for parameter \"a\": \"b\"\n"
                           "FATAL:  configuration file \"/x\" contains errors\n"),
            "invalid value for parameter \"a\": \"b\"");
  EXPECT_EQ(PostgresReason("postgres: max_wal_senders (0) is wrong\n"),
            "max_wal_senders (0) is wrong");
  EXPECT_EQ(PostgresReason("FATAL:  a\nDETAIL:  b\n"), "a: b");
  EXPECT_EQ(PostgresReason(""), "");
}

}  // namespace
}  // namespace metal::pg
