#include "tests/unit/disk/faults/fault_paths.h"

#include <map>
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

std::set<Witness> WitnessesOf(const observe::Fault& fault) {
  std::set<Witness> witnesses;
  for (const observe::FaultEvidence& each : fault.disk->evidence) {
    for (size_t i = 0; i < kWitnesses; ++i) {
      const auto witness = static_cast<Witness>(i);
      if (WitnessName(witness) == each.witness) witnesses.insert(witness);
    }
  }
  return witnesses;
}

// It is confirmed, of the drive that it is of, as its row wants, and the only one.
void ExpectConfirmed(const std::vector<observe::Fault>& faults, const FaultRow& row) {
  const observe::Fault* const fault = Find(faults, row.fault_class);
  ASSERT_NE(fault, nullptr);
  EXPECT_EQ(faults.size(), 1u);
  EXPECT_TRUE(fault->disk->confirmed) << fault->message;
  EXPECT_EQ(fault->subject, row.of_filesystem ? "nvme0n1:data" : "nvme0n1");
  EXPECT_EQ(fault->disk->serial, "METAL0001");
  std::set<EvidenceSource> sources;
  for (const Witness witness : WitnessesOf(*fault)) {
    EXPECT_TRUE(row.seen_by.contains(witness)) << WitnessName(witness);
    sources.insert(SourceOf(witness));
  }
  if (row.sightings == 0) {
    EXPECT_GE(sources.size(), static_cast<size_t>(row.witnesses));
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

TEST(FaultPathsTest, EveryWitnessThatTheTableNamesHasAPath) {
  std::map<FaultClass, std::set<Witness>> reached;
  for (const FaultPath& path : kFaultPaths) {
    WatchedNode node;
    path.raise(node);
    for (const observe::Fault& fault : node.Faults()) {
      if (fault.fault_class == FaultClassName(path.fault_class))
        reached[path.fault_class].merge(WitnessesOf(fault));
    }
  }
  for (const FaultRow& row : FaultTable()) {
    for (size_t i = 0; i < kWitnesses; ++i) {
      const auto witness = static_cast<Witness>(i);
      if (!row.seen_by.contains(witness)) continue;
      EXPECT_TRUE(reached[row.fault_class].contains(witness))
          << FaultClassName(row.fault_class) << " by " << WitnessName(witness);
    }
  }
}

}  // namespace
}  // namespace metal::disk
