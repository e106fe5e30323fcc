#include "tools/metalctl/format.h"

#include "gtest/gtest.h"
#include "tools/metalctl/client.h"
#include "tools/metalctl/progress.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

TEST(FormatTest, DurationsGrowTheirUnit) {
  EXPECT_EQ(FormatSeconds(0.04), "0.0 s");
  EXPECT_EQ(FormatSeconds(59.94), "59.9 s");
  EXPECT_EQ(FormatSeconds(250), "4m10s");
  EXPECT_EQ(FormatSeconds(7380), "2h03m");
  EXPECT_EQ(FormatSeconds(5 * 86400 + 7200), "5d02h");
}

TEST(FormatTest, EnumNamesBecomeWords) {
  EXPECT_EQ(EnumWord("POSTGRES_STATE_NO_DATA_DIRECTORY", "POSTGRES_STATE_"), "no data directory");
  EXPECT_EQ(EnumWord("ROLE_UNSPECIFIED", "ROLE_"), "unknown");
}

TEST(FormatTest, AnLsnIsWrittenAsPostgresWritesIt) {
  EXPECT_EQ(FormatLsn(0x16B374D848), "16/B374D848");
  EXPECT_EQ(FormatLsn(0), "-");
}

TEST(FormatTest, FactsGetUnits) {
  const auto facts = FormatFacts({{"bytes_per_second", "21388027"},
                                  {"copy_seconds", "30.248"},
                                  {"stored_bytes", "3116769"},
                                  {"was_running", "false"}});
  using Fact = std::pair<std::string, std::string>;
  EXPECT_EQ(facts, (std::vector<Fact>{{"rate", "21 MB/s"},
                                      {"copy", "30.2 s"},
                                      {"stored", "3.0 MiB"},
                                      {"was running", "false"}}));
}

TEST(TextTableTest, ColumnsAlignByDisplayWidth) {
  TextTable table({"NAME", ">SIZE"});
  table.AddRow({"µs", "7"});
  table.AddRow({"longer", "1234"});
  EXPECT_EQ(table.ToString(), "NAME    SIZE\nµs         7\nlonger  1234\n");
}

TEST(TextTableTest, AnEmptyCellIsADash) {
  TextTable table({"A", "B"});
  table.AddRow({"", "x"});
  EXPECT_EQ(table.ToString(), "A  B\n-  x\n");
}

TEST(ProgressLineTest, FitsTheTerminalAndNamesRateAndEta) {
  v1::Operation operation;
  operation.set_kind("CreateBackup");
  auto* progress = operation.mutable_progress();
  progress->set_phase("copying files");
  progress->set_done_bytes(512 << 20);
  progress->set_total_bytes(int64_t{1} << 30);
  progress->set_bytes_per_second(800e6);
  progress->mutable_eta()->set_seconds(3);
  const std::string line = ProgressLine(operation, 120);
  EXPECT_LE(DisplayWidth(line), 120u);
  EXPECT_NE(line.find(" 50%"), std::string::npos) << line;
  EXPECT_NE(line.find("800 MB/s"), std::string::npos) << line;
  EXPECT_NE(line.find("ETA 3.0 s"), std::string::npos) << line;
  EXPECT_NE(line.find("[####"), std::string::npos) << line;
}

TEST(ProgressLineTest, AnUnknownTotalShowsElapsedTime) {
  v1::Operation operation;
  operation.set_kind("StartPostgres");
  operation.mutable_progress()->set_phase("recovering");
  operation.mutable_progress()->mutable_phase_elapsed()->set_seconds(5);
  EXPECT_EQ(ProgressLine(operation, 80), "StartPostgres: recovering  5.0 s");
}

TEST(ClientTest, ExitCodesFollowTheDocumentedTable) {
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::UNAVAILABLE), 5);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::DEADLINE_EXCEEDED), 7);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::NOT_FOUND), 4);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::ABORTED), 5);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::DATA_LOSS), 6);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::INVALID_ARGUMENT), 2);
  EXPECT_EQ(ExitCodeOf(grpc::StatusCode::INTERNAL), 1);
}

TEST(ClientTest, RequestIdsAreVersion4UuidsAndDiffer) {
  const std::string id = NewRequestId();
  ASSERT_EQ(id.size(), 36u);
  EXPECT_EQ(id[14], '4');
  EXPECT_NE(std::string("89ab").find(id[19]), std::string::npos);
  EXPECT_NE(id, NewRequestId());
}

}  // namespace
}  // namespace metal::ctl
