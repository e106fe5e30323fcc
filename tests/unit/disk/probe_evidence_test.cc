#include "agent/disk/probe_evidence.h"

#include <cerrno>

#include "gtest/gtest.h"

namespace metal::disk {
namespace {

TargetView Target(ProbeState state, ProbeFault fault = ProbeFault::kNone, int32_t result = 0) {
  TargetView target;
  target.role = "data";
  target.directory = "/pg";
  target.state = state;
  target.fault = fault;
  target.last_result = result;
  return target;
}

TEST(ProbeEvidenceTest, AStateSaysHowItsProbesEnd) {
  TargetView stalled = Target(ProbeState::kStalled);
  stalled.oldest_outstanding = absl::Seconds(4);
  const auto evidence = EvidenceOf(stalled);
  ASSERT_TRUE(evidence.has_value());
  EXPECT_EQ(evidence->fault_class, FaultClass::kStalled);
  EXPECT_EQ(evidence->probe_result, ProbeResult::kUnanswered);
  EXPECT_EQ(evidence->outstanding, absl::Seconds(4));
  EXPECT_FALSE(evidence->error_number.has_value());

  const auto late = EvidenceOf(Target(ProbeState::kSlow));
  ASSERT_TRUE(late.has_value());
  EXPECT_EQ(late->probe_result, ProbeResult::kLate);
  EXPECT_FALSE(late->outstanding.has_value());

  const auto gone = EvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kGone, 0));
  ASSERT_TRUE(gone.has_value());
  EXPECT_EQ(gone->probe_result, ProbeResult::kShort);
  EXPECT_FALSE(gone->error_number.has_value());

  const auto read_only = EvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kReadOnly, -EROFS));
  ASSERT_TRUE(read_only.has_value());
  EXPECT_EQ(read_only->probe_result, ProbeResult::kFailed);
  EXPECT_EQ(read_only->error_number, EROFS);
}

TEST(ProbeEvidenceTest, AnErrorSaysHowItsProbeEnded) {
  // Also where the next probe has stood still meanwhile.
  const auto failed =
      ErrorEvidenceOf(Target(ProbeState::kStalled, ProbeFault::kMediaError, -ENODATA), 3);
  ASSERT_TRUE(failed.has_value());
  EXPECT_EQ(failed->probe_result, ProbeResult::kFailed);
  EXPECT_EQ(failed->error_number, ENODATA);
  EXPECT_EQ(failed->delta, 3);
  const auto other = ErrorEvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kCorruption), 1);
  ASSERT_TRUE(other.has_value());
  EXPECT_EQ(other->probe_result, ProbeResult::kOtherBytes);
  const auto old = ErrorEvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kLostWrite), 1);
  ASSERT_TRUE(old.has_value());
  EXPECT_EQ(old->probe_result, ProbeResult::kOldBytes);
  const auto torn = ErrorEvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kWriteError, 512), 1);
  ASSERT_TRUE(torn.has_value());
  EXPECT_EQ(torn->probe_result, ProbeResult::kShort);
}

TEST(ProbeEvidenceTest, AnErrorWhoseNumberIsNotKnownHasNone) {
  const auto open =
      ErrorEvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kMediaError, kSomeError), 1);
  ASSERT_TRUE(open.has_value());
  EXPECT_EQ(open->probe_result, ProbeResult::kFailed);
  EXPECT_FALSE(open->error_number.has_value());
}

TEST(ProbeEvidenceTest, WhatIsAnEventIsNoState) {
  EXPECT_FALSE(EvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kMediaError, -EIO)));
  EXPECT_FALSE(ErrorEvidenceOf(Target(ProbeState::kFaulted, ProbeFault::kGone, -ENODEV), 1));
  EXPECT_FALSE(EvidenceOf(Target(ProbeState::kHealthy)));
}

}  // namespace
}  // namespace metal::disk
