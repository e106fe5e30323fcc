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

}  // namespace
}  // namespace metal::pg
