#include "agent/pg/wal_record.h"

#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

constexpr uint64_t kSegment = 16 << 20;
constexpr uint32_t kPage = 8192;

TEST(WalRecordTest, TheEndIsAligned) {
  EXPECT_EQ(RecordEnd(base::Lsn{0x3000028}, 114, kSegment, kPage), base::Lsn{0x3000028 + 120});
  EXPECT_EQ(RecordEnd(base::Lsn{0x3000028}, 120, kSegment, kPage), base::Lsn{0x3000028 + 120});
}

TEST(WalRecordTest, ARecordThatEndsWithItsPageHasNoHeaderOfTheNext) {
  EXPECT_EQ(RecordEnd(base::Lsn{kPage - 120}, 120, kSegment, kPage), base::Lsn{kPage});
}

TEST(WalRecordTest, PageHeadersCount) {
  EXPECT_EQ(RecordEnd(base::Lsn{kPage - 64}, 120, kSegment, kPage), base::Lsn{kPage + 24 + 56});
  // The first page of a segment has the long one.
  EXPECT_EQ(RecordEnd(base::Lsn{kSegment - 64}, 120, kSegment, kPage),
            base::Lsn{kSegment + 40 + 56});
  EXPECT_EQ(RecordEnd(base::Lsn{kPage + 24}, 2 * kPage, kSegment, kPage),
            base::Lsn{3 * kPage + 24 + 48});
}

TEST(WalRecordTest, TheLengthComesFromTheSegment) {
  metal::testing::TempDir directory;
  std::string segment(4096, '\0');
  const uint32_t length = 114;
  memcpy(segment.data() + 0x28, &length, sizeof length);
  directory.Write("pg_wal/000000020000000100000003", segment);
  const RecordPlace place{2, base::Lsn{0x103000028}, kSegment, kPage};
  ASSERT_OK_AND_ASSIGN(const base::Lsn end, ReadRecordEnd(directory.path(), place));
  EXPECT_EQ(end, base::Lsn{0x103000028 + 120});
  EXPECT_THAT(ReadRecordEnd(directory.path(), {2, base::Lsn{0x103000100}, kSegment, kPage}),
              metal::testing::StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(ReadRecordEnd(directory.path(), {3, base::Lsn{0x103000028}, kSegment, kPage}),
              metal::testing::StatusIs(absl::StatusCode::kNotFound));
}

TEST(WalRecordTest, ACheckpointSaysWhereRecoveryBegins) {
  metal::testing::TempDir directory;
  std::string segment(2 * kPage, '\0');
  const auto put = [&](size_t at, uint8_t manager, uint8_t info) {
    const uint64_t redo = 0x102fffff8;
    segment[at + 16] = static_cast<char>(info);
    segment[at + 17] = static_cast<char>(manager);
    segment[at + 24] = '\xff';
    segment[at + 25] = 88;
    memcpy(segment.data() + at + 26, &redo, sizeof redo);
  };
  put(0x28, 0, 0x10);    // an online checkpoint
  put(0x100, 0, 0x00);   // a shutdown checkpoint
  put(0x200, 0, 0x40);   // another record of the same manager
  put(0x300, 10, 0x10);  // another manager's
  directory.Write("pg_wal/000000020000000100000003", segment);
  const auto redo = [&](uint64_t at) {
    return ReadCheckpointRedo(directory.path(), {2, base::Lsn{0x103000000 + at}, kSegment, kPage});
  };
  EXPECT_THAT(redo(0x28), metal::testing::IsOkAndHolds(base::Lsn{0x102fffff8}));
  EXPECT_THAT(redo(0x100), metal::testing::IsOkAndHolds(base::Lsn{0x102fffff8}));
  for (const uint64_t at : {0x200, 0x300}) {
    EXPECT_THAT(redo(at), metal::testing::StatusIs(absl::StatusCode::kDataLoss));
  }
  EXPECT_THAT(redo(kPage - 32), metal::testing::StatusIs(absl::StatusCode::kOutOfRange));
}

}  // namespace
}  // namespace metal::pg
