#include "agent/gate/door_record.h"

#include <gtest/gtest.h>

#include "agent/base/status.h"
#include "tests/harness/status_matchers.h"

namespace metal::gate {
namespace {

using testing::ReasonOf;
using testing::StatusIs;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

Orderer By(uint64_t term, const std::string& who = "o", const std::string& id = "") {
  return {term, who, id};
}
DoorRecord Fresh() {
  DoorRecord record;
  record.target = {"db-1", 5432};
  return record;
}

TEST(DoorRecordTest, WhatIsWrittenIsRead) {
  DoorRecord record = ApplyHold(Fresh(), By(7, "o=\n\\", "id-1"), absl::Seconds(30), kNow);
  record = ApplyHold(record, By(7, "o=\n\\", "id-2"), absl::Seconds(20), kNow);
  ASSERT_OK_AND_ASSIGN(const DoorRecord read, DecodeDoorRecord(EncodeDoorRecord(record)));
  EXPECT_EQ(read.target, record.target);
  EXPECT_TRUE(read.held);
  EXPECT_EQ(read.held_since, kNow);
  EXPECT_EQ(read.held_until, kNow + absl::Seconds(20));
  EXPECT_EQ(read.held_for, absl::Seconds(20));
  EXPECT_EQ(read.term, 7u);
  EXPECT_EQ(read.orchestrator_id, "o=\n\\");
  EXPECT_EQ(read.requests, (std::vector<std::string>{"id-1", "id-2"}));
  ASSERT_OK_AND_ASSIGN(const DoorRecord plain, DecodeDoorRecord(EncodeDoorRecord(Fresh())));
  EXPECT_FALSE(plain.held);
  EXPECT_EQ(plain.held_until, absl::InfinitePast());
  EXPECT_TRUE(plain.requests.empty());
}

TEST(DoorRecordTest, EveryCutAndEveryChangedByteIsSeen) {
  const std::string text = EncodeDoorRecord(ApplyHold(Fresh(), By(7), absl::Seconds(30), kNow));
  for (size_t length = 0; length < text.size(); ++length)
    EXPECT_THAT(DecodeDoorRecord(text.substr(0, length)), StatusIs(absl::StatusCode::kDataLoss));
  for (size_t at = 0; at + 10 < text.size(); ++at) {
    std::string changed = text;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    EXPECT_THAT(DecodeDoorRecord(changed), StatusIs(absl::StatusCode::kDataLoss)) << at;
  }
}

TEST(DoorRecordTest, LowerTermsAndOtherHoldersAreRefused) {
  const DoorRecord record = ApplyHold(Fresh(), By(7, "a"), absl::Seconds(30), kNow);
  EXPECT_EQ(ReasonOf(CheckOrder(record, By(6, "a"))), "STALE_TERM");
  EXPECT_EQ(ReasonOf(CheckOrder(record, By(7, "b"))), "TERM_HELD");
  EXPECT_OK(CheckOrder(record, By(7, "a")));
  EXPECT_OK(CheckOrder(record, By(8, "b")));
  EXPECT_THAT(CheckOrder(record, By(0)), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(CheckOrder(record, By(9, "")), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(DoorRecordTest, ALateCopyOfAnEarlierRequestDoesNotActAgain) {
  DoorRecord record = ApplyHold(Fresh(), By(7, "a", "hold"), absl::Seconds(30), kNow);
  EXPECT_EQ(WasAsked(record, "hold"), Asked::kLast);
  record = ApplyRelease(record, By(7, "a", "release"), {"db-2", 5432});
  EXPECT_EQ(ReasonOf(CheckOrder(record, By(7, "a", "hold"))), "REQUEST_SUPERSEDED");
  EXPECT_OK(CheckOrder(record, By(7, "a", "release")));
  EXPECT_EQ(WasAsked(record, ""), Asked::kNew);
  for (int i = 0; i < 40; ++i)
    record = ApplyHold(record, By(7, "a", std::to_string(i)), absl::Seconds(30), kNow);
  EXPECT_EQ(record.requests.size(), 16u);
}

TEST(DoorRecordTest, AReleaseLeadsElsewhereAndAnExpiredHoldDoesNot) {
  const DoorRecord held = ApplyHold(Fresh(), By(7), absl::Seconds(30), kNow);
  EXPECT_EQ(held.target, (Target{"db-1", 5432}));
  EXPECT_EQ(ApplyRelease(held, By(7), {"db-2", 5433}).target, (Target{"db-2", 5433}));
  EXPECT_FALSE(ApplyRelease(held, By(7), {"db-2", 5433}).held);
  EXPECT_EQ(ApplyExpiry(held).target, (Target{"db-1", 5432}));
  EXPECT_FALSE(ApplyExpiry(held).held);
  EXPECT_EQ(ApplyExpiry(held).term, 7u) << "an old order stays old";
}

TEST(DoorRecordTest, AnotherHoldKeepsTheBeginningAndMovesTheEnd) {
  DoorRecord held = ApplyHold(Fresh(), By(7), absl::Seconds(30), kNow);
  held = ApplyHold(held, By(7), absl::Seconds(30), kNow + absl::Seconds(10));
  EXPECT_EQ(held.held_since, kNow);
  EXPECT_EQ(held.held_until, kNow + absl::Seconds(40));
}

TEST(DoorRecordTest, NoStepOfTheClockProlongsAHold) {
  const DoorRecord held = ApplyHold(Fresh(), By(7), absl::Seconds(30), kNow);
  EXPECT_EQ(HoldLeft(held, kNow + absl::Seconds(10)), absl::Seconds(20));
  EXPECT_EQ(HoldLeft(held, kNow + absl::Hours(1)), absl::ZeroDuration());
  EXPECT_EQ(HoldLeft(held, kNow - absl::Hours(1)), absl::Seconds(30));
  EXPECT_EQ(HoldLeft(Fresh(), kNow), absl::ZeroDuration());
}

TEST(TargetTest, OnlyAPlainServerIsATarget) {
  for (const char* host :
       {"db-1", "10.0.0.2", "::1", "fe80::1%eth0", "db.example.org", "/run/metal"})
    EXPECT_OK(CheckTarget({host, 5432})) << host;
  for (const char* host : {"", "a,b", "a b", "a'b", "a/b", "a\nb", "a;b", "a=b", "\"", "@x"}) {
    EXPECT_THAT(CheckTarget({host, 5432}), StatusIs(absl::StatusCode::kInvalidArgument)) << host;
  }
  for (const int port : {0, -1, 65536})
    EXPECT_THAT(CheckTarget({"db", port}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ((Target{"::1", 5432}).ToString(), "[::1]:5432");
  EXPECT_EQ((Target{"/run/metal", 5432}).ToString(), "/run/metal:5432");
}

}  // namespace
}  // namespace metal::gate
