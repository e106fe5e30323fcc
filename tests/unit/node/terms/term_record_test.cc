#include "agent/node/terms/term_record.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "agent/base/crc32c.h"
#include "agent/base/status.h"
#include "tests/harness/status_matchers.h"

namespace metal::node {
namespace {

using ::metal::testing::IsOk;
using ::metal::testing::ReasonOf;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

TermRecord Sample() {
  TermRecord record;
  record.term = 7;
  record.orchestrator_id = "orc=1 with \\ odd bytes";
  record.role_wanted = observe::Role::kPrimary;
  record.role_term = 7;
  return record;
}

TEST(TermRecordTest, TextRoundTrips) {
  TermRecord record = Sample();
  record.fence = {.active = true,
                  .reason = "disk nvme0n1 = dying\nsecond line",
                  .term = 6,
                  .since = absl::FromUnixMicros(1'800'000'000'123'456)};
  ASSERT_OK_AND_ASSIGN(const TermRecord decoded, DecodeTermRecord(EncodeTermRecord(record)));
  EXPECT_EQ(decoded.term, 7u);
  EXPECT_EQ(decoded.orchestrator_id, record.orchestrator_id);
  EXPECT_EQ(decoded.role_wanted, observe::Role::kPrimary);
  EXPECT_EQ(decoded.role_term, 7u);
  EXPECT_TRUE(decoded.fence.active);
  EXPECT_EQ(decoded.fence.reason, record.fence.reason);
  EXPECT_EQ(decoded.fence.term, 6u);
  EXPECT_EQ(decoded.fence.since, record.fence.since);
}

TEST(TermRecordTest, LeaseRoundTripsAndIsAbsentWhereThereIsNone) {
  EXPECT_EQ(EncodeTermRecord(Sample()).find("lease"), std::string::npos)
      << "an agent from before leases wrote the same";
  ASSERT_OK_AND_ASSIGN(TermRecord decoded, DecodeTermRecord(EncodeTermRecord(Sample())));
  EXPECT_FALSE(decoded.HasLease());
  TermRecord record = Sample();
  record.lease = {.ttl = absl::Milliseconds(1500), .term = 7, .expired = false};
  ASSERT_OK_AND_ASSIGN(decoded, DecodeTermRecord(EncodeTermRecord(record)));
  EXPECT_TRUE(decoded.HasLease());
  EXPECT_EQ(decoded.lease.ttl, absl::Milliseconds(1500));
  record.lease.expired = true;
  ASSERT_OK_AND_ASSIGN(decoded, DecodeTermRecord(EncodeTermRecord(record)));
  EXPECT_TRUE(decoded.lease.expired);
  EXPECT_FALSE(decoded.MayRunAsPrimary());
}

TEST(TermRecordTest, RecordsFromBeforeLeasesAreRead) {
  const std::string old =
      "metal-term 1\nterm=7\norchestrator_id=a\nrole_wanted=primary\nrole_term=7\n"
      "fence_active=0\nfence_reason=\nfence_term=0\nfence_since_us=0\n";
  const uint32_t crc = base::Crc32c(std::as_bytes(std::span<const char>(old)));
  ASSERT_OK_AND_ASSIGN(const TermRecord decoded,
                       DecodeTermRecord(old + fmt::format("crc32c={:08x}\n", crc)));
  EXPECT_TRUE(decoded.MayRunAsPrimary());
  EXPECT_FALSE(decoded.HasLease());
}

TEST(TermRecordTest, EveryTruncationIsRejected) {
  const std::string text = EncodeTermRecord(Sample());
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(DecodeTermRecord(text.substr(0, size)), StatusIs(absl::StatusCode::kDataLoss))
        << size;
  }
}

TEST(TermRecordTest, EveryChangedByteIsRejected) {
  const std::string text = EncodeTermRecord(Sample());
  for (size_t at = 0; at < text.size(); ++at) {
    std::string changed = text;
    changed[at] = static_cast<char>(changed[at] ^ 0x01);
    EXPECT_THAT(DecodeTermRecord(changed), StatusIs(absl::StatusCode::kDataLoss)) << at;
  }
}

TEST(TermRecordTest, HigherTermIsAccepted) {
  ASSERT_OK_AND_ASSIGN(const TermRecord next, ApplyBeginTerm(Sample(), {9, "other"}));
  EXPECT_EQ(next.term, 9u);
  EXPECT_EQ(next.orchestrator_id, "other");
  // The order to be primary was of term 7: it does not count any more.
  EXPECT_FALSE(next.MayRunAsPrimary());
}

TEST(TermRecordTest, EqualTermBelongsToItsOrchestrator) {
  EXPECT_THAT(ApplyBeginTerm(Sample(), {7, Sample().orchestrator_id}), IsOk());
  const auto other = ApplyBeginTerm(Sample(), {7, "other"});
  EXPECT_THAT(other, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("HINT")));
  EXPECT_EQ(ReasonOf(other.status()), "TERM_HELD");
}

TEST(TermRecordTest, LowerTermIsStale) {
  const auto stale = ApplyBeginTerm(Sample(), {6, Sample().orchestrator_id});
  EXPECT_THAT(stale, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(stale.status()), "STALE_TERM");
  EXPECT_EQ(base::GetReason(stale.status())->metadata.at("stored_term"), "7");
}

TEST(TermRecordTest, TermZeroAndNamelessOrchestratorsAreInvalid) {
  EXPECT_THAT(ApplyBeginTerm({}, {0, "a"}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ApplyBeginTerm({}, {1, ""}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ApplyBeginTerm({}, {1, "a\nb"}), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ApplyFence({}, {1, "a"}, "x\ny", absl::FromUnixSeconds(1)),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(TermRecordTest, RoleNeedsExactlyTheStoredTerm) {
  const std::string self = Sample().orchestrator_id;
  EXPECT_EQ(ReasonOf(ApplyRoleWanted(Sample(), {8, self}, observe::Role::kPrimary).status()),
            "ROLE_TRANSITION");
  EXPECT_EQ(ReasonOf(ApplyRoleWanted(Sample(), {6, self}, observe::Role::kPrimary).status()),
            "STALE_TERM");
  EXPECT_EQ(ReasonOf(ApplyRoleWanted(Sample(), {7, "other"}, observe::Role::kPrimary).status()),
            "TERM_HELD");
  EXPECT_THAT(ApplyRoleWanted(Sample(), {7, self}, observe::Role::kPrimary), IsOk());
}

TEST(TermRecordTest, AServerStaysDownWhileTheFenceIsBecauseOfTheDisk) {
  TermRecord record;
  EXPECT_EQ(HeldDown(record), "");
  record.fence = {.active = true, .reason = "disk: gone nvme0n1", .term = 1};
  EXPECT_THAT(HeldDown(record), HasSubstr("(disk: gone nvme0n1). HINT: "));
  record.fence.reason = "failover to b";
  EXPECT_EQ(HeldDown(record), "");
  record.fence = {.active = false, .reason = "disk: gone nvme0n1"};
  EXPECT_EQ(HeldDown(record), "");
}

TEST(TermRecordTest, FenceForbidsThePrimaryRoleUntilUnfenced) {
  const std::string self = Sample().orchestrator_id;
  ASSERT_OK_AND_ASSIGN(TermRecord fenced,
                       ApplyFence(Sample(), {7, self}, "sick disk", absl::FromUnixSeconds(5)));
  EXPECT_FALSE(fenced.MayRunAsPrimary());
  const auto promote = ApplyRoleWanted(fenced, {7, self}, observe::Role::kPrimary);
  EXPECT_EQ(ReasonOf(promote.status()), "FENCED");
  ASSERT_OK_AND_ASSIGN(const TermRecord free, ApplyUnfence(fenced, {7, self}));
  EXPECT_FALSE(free.fence.active);
  // Unfenced, but nobody ordered it to be primary again.
  EXPECT_FALSE(free.MayRunAsPrimary());
}

TEST(TermRecordTest, FenceBeginsAHigherTermAndKeepsItsAge) {
  ASSERT_OK_AND_ASSIGN(TermRecord fenced,
                       ApplyFence(Sample(), {8, "b"}, "first", absl::FromUnixSeconds(5)));
  EXPECT_EQ(fenced.term, 8u);
  ASSERT_OK_AND_ASSIGN(fenced, ApplyFence(fenced, {9, "c"}, "", absl::FromUnixSeconds(50)));
  EXPECT_EQ(fenced.fence.term, 9u);
  EXPECT_EQ(fenced.fence.reason, "first");
  EXPECT_EQ(fenced.fence.since, absl::FromUnixSeconds(5));
  EXPECT_EQ(ReasonOf(ApplyUnfence(fenced, {8, "b"}).status()), "STALE_TERM");
}

TEST(TermRecordTest, AFenceThatIsOrderedOnTopOfTheDisksKeepsTheServerDown) {
  ASSERT_OK_AND_ASSIGN(TermRecord fenced, ApplyFence(Sample(), {8, "b"}, "disk: gone nvme0n1",
                                                     absl::FromUnixSeconds(5)));
  for (int i = 0; i < 2; ++i) {
    ASSERT_OK_AND_ASSIGN(fenced,
                         ApplyFence(fenced, {9, "c"}, "failover to b", absl::FromUnixSeconds(50)));
    EXPECT_TRUE(fenced.FencedForDisk());
    EXPECT_EQ(fenced.fence.reason, "disk: gone nvme0n1; also: failover to b");
  }
  EXPECT_NE(HeldDown(fenced), "");
  const std::string text(kLongestFenceReason, 'x');
  ASSERT_OK_AND_ASSIGN(fenced, ApplyFence(fenced, {9, "c"}, text, absl::FromUnixSeconds(60)));
  EXPECT_EQ(fenced.fence.reason.size(), kLongestFenceReason) << "as long as one may be";
  EXPECT_TRUE(fenced.FencedForDisk());
  ASSERT_OK_AND_ASSIGN(TermRecord other,
                       ApplyFence(Sample(), {8, "b"}, "maintenance", absl::FromUnixSeconds(5)));
  ASSERT_OK_AND_ASSIGN(other, ApplyFence(other, {8, "b"}, "handed over", absl::FromUnixSeconds(6)));
  EXPECT_EQ(other.fence.reason, "handed over");
  ASSERT_OK_AND_ASSIGN(other, ApplyFence(other, {8, "b"}, "disk: gone", absl::FromUnixSeconds(7)));
  EXPECT_EQ(other.fence.reason, "disk: gone; also: handed over");
}

TEST(TermRecordTest, WhicheverOfTwoFencesIsNewerTheDisksReasonStays) {
  TermRecord disk = Sample(), ordered = Sample();
  disk.fence = {.active = true, .reason = "disk: gone", .term = 7};
  for (const uint64_t term : {6u, 7u, 8u}) {
    ordered.fence = {.active = true, .reason = "failover", .term = term};
    EXPECT_TRUE(WithFence(disk, ordered).FencedForDisk()) << term;
    EXPECT_TRUE(WithFence(ordered, disk).FencedForDisk()) << term;
    EXPECT_EQ(WithFence(ordered, disk).fence.term, std::max<uint64_t>(term, 7));
    EXPECT_THAT(WithFence(ordered, disk).fence.reason, HasSubstr("failover"));
  }
  ordered.fence.reason = "maintenance";
  disk.fence = {.active = true, .reason = "failover", .term = 9};
  EXPECT_EQ(WithFence(ordered, disk).fence.reason, "failover") << "the newer";
}

TEST(TermRecordTest, FenceSurvivesANewTerm) {
  ASSERT_OK_AND_ASSIGN(TermRecord fenced,
                       ApplyFence(Sample(), {8, "b"}, "x", absl::FromUnixSeconds(5)));
  ASSERT_OK_AND_ASSIGN(const TermRecord next, ApplyBeginTerm(fenced, {12, "c"}));
  EXPECT_TRUE(next.fence.active);
  EXPECT_EQ(next.fence.term, 8u);
}

}  // namespace
}  // namespace metal::node
