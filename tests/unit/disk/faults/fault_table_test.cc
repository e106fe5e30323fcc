#include "agent/disk/faults/fault_table.h"

#include <cstdlib>
#include <filesystem>
#include <set>

#include "agent/base/fault_reactions.h"
#include "agent/base/file.h"
#include "agent/disk/faults/runbook.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"

namespace metal::disk {
namespace {

using ::metal::testing::IsOkAndHolds;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kRunbooks =
    std::filesystem::path(__FILE__).parent_path() / "../../../../agent/docs/runbooks/";

std::set<EvidenceSource> Sources(const FaultRow& row) {
  std::set<EvidenceSource> sources;
  for (size_t i = 0; i < kWitnesses; ++i) {
    const auto witness = static_cast<Witness>(i);
    if (row.seen_by.contains(witness)) sources.insert(SourceOf(witness));
  }
  return sources;
}

TEST(FaultTableTest, HasARowForEachClassInTheirOrder) {
  ASSERT_EQ(FaultTable().size(), kFaultClasses);
  std::set<std::string_view> names;
  for (size_t i = 0; i < kFaultClasses; ++i) {
    const FaultRow& row = FaultTable()[i];
    EXPECT_EQ(row.fault_class, static_cast<FaultClass>(i));
    EXPECT_TRUE(names.insert(FaultClassName(row.fault_class)).second);
    for (std::string_view text : {row.title, row.meaning, row.evidence, row.guard, row.hint}) {
      EXPECT_FALSE(text.empty()) << FaultClassName(row.fault_class);
    }
    EXPECT_GE(row.witnesses, 1);
    EXPECT_GE(Sources(row).size(), static_cast<size_t>(row.sightings == 0 ? row.witnesses : 1))
        << FaultClassName(row.fault_class) << " could never be confirmed";
    EXPECT_EQ(row.sightings > 0, row.within > absl::ZeroDuration());
  }
}

TEST(FaultTableTest, TheConfigurationKnowsTheClassesAndWhatTheyAskFor) {
  ASSERT_EQ(std::size(base::kFaultReactions), kFaultClasses);
  for (const FaultRow& row : FaultTable()) {
    const base::FaultReaction& known = base::kFaultReactions[static_cast<size_t>(row.fault_class)];
    EXPECT_EQ(known.fault_class, FaultClassName(row.fault_class));
    EXPECT_EQ(known.reaction, ReactionName(row.reaction)) << known.fault_class;
  }
}

// What takes a node out of service needs two independent witnesses; but nobody else may ever see a
// lost write, and a device that is gone is not mistaken for another.
TEST(FaultTableTest, NothingIsFencedOnTheWordOfOneWitness) {
  const std::set<FaultClass> alone = {FaultClass::kGone, FaultClass::kWriteError,
                                      FaultClass::kFsyncError};
  for (const FaultRow& row : FaultTable()) {
    if (row.reaction != Reaction::kDemote) continue;
    EXPECT_TRUE(row.fatal) << FaultClassName(row.fault_class);
    if (alone.contains(row.fault_class)) continue;
    EXPECT_GE(row.witnesses, 2) << FaultClassName(row.fault_class);
    EXPECT_EQ(row.sightings, 0) << FaultClassName(row.fault_class);
  }
}

// METAL_UPDATE_RUNBOOKS=1 writes them anew.
TEST(FaultTableTest, RunbooksAreWhatTheTableSays) {
  const bool update = std::getenv("METAL_UPDATE_RUNBOOKS") != nullptr;
  if (update) {
    ASSERT_OK(base::MakeDirectories(kRunbooks, 0755));
  }
  const auto expect = [&](const std::string& name, const std::string& page) {
    const std::string path = kRunbooks + name + ".md";
    if (update) {
      ASSERT_OK(base::WriteFileDurably(path, page, 0644));
    }
    EXPECT_THAT(base::ReadFile(path), IsOkAndHolds(page))
        << "METAL_UPDATE_RUNBOOKS=1 with this test writes the pages";
  };
  for (const FaultRow& row : FaultTable()) {
    expect(std::string(FaultClassName(row.fault_class)), RunbookPage(row));
  }
  expect("README", RunbookIndex());
}

TEST(FaultTableTest, APageSaysHowAFaultIsConfirmedAndEnds) {
  const std::string stalled = RunbookPage(RowOf(FaultClass::kStalled));
  EXPECT_THAT(stalled, HasSubstr("Witnesses of 2 different sources"));
  EXPECT_THAT(stalled, HasSubstr("asks the orchestrator for a failover"));
  EXPECT_THAT(RunbookPage(RowOf(FaultClass::kControllerReset)),
              HasSubstr("or one has to see it 2 times within 1h"));
  EXPECT_THAT(RunbookPage(RowOf(FaultClass::kReadOnly)), Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace metal::disk
