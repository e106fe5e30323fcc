#include "tools/metalctl/progress.h"

#include "gtest/gtest.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

metal::agent::v1::Operation At(const std::string& phase, int percent) {
  metal::agent::v1::Operation operation;
  operation.set_name("operations/1");
  operation.set_kind("CreateBackup");
  auto* progress = operation.mutable_progress();
  progress->set_phase(phase);
  progress->set_done_bytes(percent);
  progress->set_total_bytes(100);
  return operation;
}

TEST(ProgressLineTest, NarrowTerminalsGetWhatFits) {
  const auto operation = At("copying files of the data directory", 50);
  for (const int width : {20, 40, 60, 80, 200}) {
    EXPECT_LE(DisplayWidth(ProgressLine(operation, width)), static_cast<size_t>(width));
  }
}

TEST(ProgressPacerTest, AtMostOneLineASecondAndFivePercent) {
  ProgressPacer pacer;
  const absl::Time start = absl::UnixEpoch();
  const auto at = [&](int milliseconds, const std::string& phase, int percent) {
    return pacer.Deserves(At(phase, percent), start + absl::Milliseconds(milliseconds));
  };
  EXPECT_FALSE(at(0, "", 0)) << "no phase yet";
  EXPECT_TRUE(at(0, "copying", 0)) << "a new phase";
  EXPECT_FALSE(at(900, "copying", 50)) << "too soon";
  EXPECT_TRUE(at(1000, "copying", 50));
  EXPECT_FALSE(at(3000, "copying", 54)) << "too little";
  EXPECT_TRUE(at(4000, "copying", 55));
  EXPECT_TRUE(at(34000, "copying", 56)) << "a sign of life";
  EXPECT_TRUE(at(34001, "waiting for WAL", 0)) << "a new phase";
}

TEST(ProgressJsonTest, UnknownEtaIsNull) {
  EXPECT_EQ(ProgressJson(At("copying", 7)),
            R"({"progress":{"operation":"operations/1","kind":"CreateBackup","phase":"copying",)"
            R"("done_bytes":7,"total_bytes":100,"bytes_per_second":0,"eta_seconds":null}})");
}

}  // namespace
}  // namespace metal::ctl
