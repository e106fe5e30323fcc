#include "tests/unit/disk/faults/fault_paths.h"

#include <set>
#include <vector>

#include "gmock/gmock.h"

namespace metal::disk {
namespace {

using metal::testing::WatchedNode;

const observe::Fault* Find(const std::vector<observe::Fault>& faults, FaultClass fault_class) {
  for (const observe::Fault& fault : faults) {
    if (fault.fault_class == FaultClassName(fault_class)) return &fault;
  }
  return nullptr;
}

std::set<EvidenceSource> SourcesOf(const observe::Fault& fault) {
  std::set<EvidenceSource> sources;
  for (const observe::FaultEvidence& each : fault.disk->evidence) {
    for (size_t i = 0; i < kWitnesses; ++i) {
      const auto witness = static_cast<Witness>(i);
      if (WitnessName(witness) == each.witness) sources.insert(SourceOf(witness));
    }
  }
  return sources;
}

// It is confirmed, of the drive that it is of, as its row wants, and the only one.
void ExpectConfirmed(const std::vector<observe::Fault>& faults, const FaultRow& row) {
  const observe::Fault* const fault = Find(faults, row.fault_class);
  ASSERT_NE(fault, nullptr);
  EXPECT_EQ(faults.size(), 1u);
  EXPECT_TRUE(fault->disk->confirmed) << fault->message;
  EXPECT_EQ(fault->subject, row.of_filesystem ? "nvme0n1:data" : "nvme0n1");
  EXPECT_EQ(fault->disk->serial, "METAL0001");
  if (row.sightings == 0) {
    EXPECT_GE(SourcesOf(*fault).size(), static_cast<size_t>(row.witnesses));
  }
}

TEST(FaultPathsTest, WhatAHostShowsIsConfirmedAndEnds) {
  for (const FaultPath& path : kFaultPaths) {
    const FaultRow& row = RowOf(path.fault_class);
    SCOPED_TRACE(fmt::format("{} by {}", FaultClassName(path.fault_class), path.by));
    WatchedNode node;
    ASSERT_TRUE(node.Faults().empty());
    path.raise(node);
    ExpectConfirmed(node.Faults(), row);
    if (path.end != nullptr) {
      path.end(node);
    } else {
      ASSERT_LT(row.quiet, absl::InfiniteDuration());
      node.Pass(row.quiet - absl::Seconds(1));
      EXPECT_NE(Find(node.Faults(), path.fault_class), nullptr);
      node.Pass(absl::Seconds(1));
    }
    EXPECT_EQ(Find(node.Faults(), path.fault_class), nullptr);
    EXPECT_GE(node.events_.Count("disk.fault_cleared"), 1u);
  }
}

TEST(FaultPathsTest, EveryClassHasAPath) {
  std::set<FaultClass> reached;
  for (const FaultPath& path : kFaultPaths) reached.insert(path.fault_class);
  for (const FaultRow& row : FaultTable()) {
    EXPECT_TRUE(reached.contains(row.fault_class)) << FaultClassName(row.fault_class);
  }
}

}  // namespace
}  // namespace metal::disk
