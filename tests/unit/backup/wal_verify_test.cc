// WAL of a range as verify reads it: hashes, and the pages themselves.
#include "agent/backup/wal_verify.h"

#include <cstring>

#include "agent/backup/wal_pages.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

using absl::StatusCode;
using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

constexpr size_t kPage = 8192;

TestSegment SegmentAt(uint64_t number) {
  TestSegment segment;
  segment.start = base::Lsn{number * kTestSegmentSize};
  return segment;
}

class VerifyRangeTest : public ::testing::Test {
 protected:
  absl::Status Push(const TestSegment& segment, const std::string& bytes) {
    return archive_.PushBytes(segment.Name(), BytesOf(bytes), kTestSystem).status();
  }
  absl::StatusOr<uint64_t> Verify(uint64_t from, uint64_t to) {
    WalRange range;
    range.system_identifier = kTestSystem;
    range.timeline = 1;
    range.from = base::Lsn{from};
    range.to = base::Lsn{to};
    range.segment_size = kTestSegmentSize;
    return VerifyRange(archive_, range, progress_);
  }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  observe::Progress progress_{clock_};
  WalArchive archive_{{.repository_path = directory_.File("repository")}, clock_, nullptr};
};

TEST_F(VerifyRangeTest, WholeSegmentsPass) {
  for (uint64_t i = 3; i <= 5; ++i) ASSERT_OK(Push(SegmentAt(i), SegmentAt(i).Bytes()));
  EXPECT_THAT(Verify(3 * kTestSegmentSize + 100, 6 * kTestSegmentSize), IsOkAndHolds(3u));
  EXPECT_EQ(progress_.Snapshot().done_bytes, 3 * kTestSegmentSize);
}

TEST_F(VerifyRangeTest, AMissingOneIsNamed) {
  ASSERT_OK(Push(SegmentAt(3), SegmentAt(3).Bytes()));
  const auto verified = Verify(3 * kTestSegmentSize, 5 * kTestSegmentSize);
  EXPECT_THAT(verified, StatusIs(StatusCode::kFailedPrecondition, HasSubstr(SegmentAt(4).Name())));
  EXPECT_EQ(base::GetReason(verified.status())->reason, "WAL_MISSING");
}

TEST_F(VerifyRangeTest, ADamagedByteIsFound) {
  ASSERT_OK(Push(SegmentAt(3), SegmentAt(3).Bytes()));
  const std::string path = directory_.File(
      fmt::format("repository/{}/wal/00000001/{}.wal", kTestSystem, SegmentAt(3).Name()));
  ASSERT_OK_AND_ASSIGN(std::string bytes, base::ReadFile(path, 4 << 20));
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  ASSERT_OK(base::WriteFileDurably(path, bytes));
  const auto verified = Verify(3 * kTestSegmentSize, 4 * kTestSegmentSize);
  EXPECT_THAT(verified, StatusIs(StatusCode::kDataLoss, HasSubstr(SegmentAt(3).Name())));
  EXPECT_EQ(base::GetReason(verified.status())->reason, "REPOSITORY");
}

TEST_F(VerifyRangeTest, RightBytesOfAWrongPageAreFound) {
  struct Case {
    const char* what;
    size_t offset;
    uint64_t value;
    const char* said;
  };
  uint64_t number = 3;
  for (const Case& each :
       {Case{"address", 8, 4711, "says that it is at"}, Case{"timeline", 4, 7, "of timeline 7"},
        Case{"magic", 0, 1, "magic 0001"}}) {
    const TestSegment segment = SegmentAt(number);
    std::string bytes = segment.Bytes();
    std::memcpy(bytes.data() + 5 * kPage + each.offset, &each.value, each.offset == 0 ? 2 : 4);
    ASSERT_OK(Push(segment, bytes));
    EXPECT_THAT(Verify(number * kTestSegmentSize, (number + 1) * kTestSegmentSize),
                StatusIs(StatusCode::kDataLoss, HasSubstr(each.said)))
        << each.what;
    ++number;
  }
}

TEST_F(VerifyRangeTest, ASegmentThatWasSwitchedEndsInZeros) {
  const TestSegment segment = SegmentAt(3);
  std::string bytes = segment.Bytes();
  std::memset(bytes.data() + 10 * kPage, 0, bytes.size() - 10 * kPage);
  ASSERT_OK(Push(segment, bytes));
  EXPECT_OK(Verify(segment.start.value, segment.start.value + 10 * kPage));
  // Switched in the middle of a backup, or right at its end.
  ASSERT_OK(Push(SegmentAt(4), SegmentAt(4).Bytes()));
  EXPECT_OK(Verify(segment.start.value, SegmentAt(4).start.value + 100));
  EXPECT_OK(Verify(segment.start.value, SegmentAt(4).start.value));
  // What is needed is not there.
  EXPECT_THAT(Verify(segment.start.value, segment.start.value + 10 * kPage + 1),
              StatusIs(StatusCode::kDataLoss, HasSubstr("empty")));
}

TEST(WalPagesTest, PiecesOfAnySizeMakeTheSame) {
  const TestSegment segment = SegmentAt(3);
  const std::string bytes = segment.Bytes();
  for (const size_t piece : {size_t{4096}, size_t{100'000}, bytes.size()}) {
    WalPages pages(*ParseWalFile(segment.Name()), kTestSystem, base::Lsn{0});
    for (size_t at = 0; at < bytes.size(); at += piece) {
      ASSERT_OK(pages.Add(BytesOf(std::string_view(bytes).substr(at, piece)))) << piece;
    }
    EXPECT_OK(pages.Finish());
  }
}

TEST(WalPagesTest, ACutOffSegmentOrAnotherClustersIsRefused) {
  const TestSegment segment = SegmentAt(3);
  const std::string bytes = segment.Bytes();
  WalPages cut(*ParseWalFile(segment.Name()), kTestSystem, base::Lsn{0});
  ASSERT_OK(cut.Add(BytesOf(std::string_view(bytes).substr(0, 3 * kPage))));
  EXPECT_THAT(cut.Finish(), StatusIs(StatusCode::kDataLoss));
  WalPages other(*ParseWalFile(segment.Name()), kTestSystem + 1, base::Lsn{0});
  EXPECT_THAT(other.Add(BytesOf(bytes)), StatusIs(StatusCode::kDataLoss, HasSubstr("foreign")));
}

}  // namespace
}  // namespace metal::backup
