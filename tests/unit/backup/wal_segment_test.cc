#include "agent/backup/wal_segment.h"

#include "tests/harness/status_matchers.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

using absl::StatusCode;
using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

absl::StatusOr<uint64_t> Check(std::string_view name, std::string_view bytes,
                               uint64_t system = kTestSystem) {
  const auto file = ParseWalFile(name);
  if (!file) return absl::NotFoundError("name");
  return CheckWalContent(*file, BytesOf(bytes).first(std::min(bytes.size(), kWalCheckBytes)),
                         bytes.size(), system);
}

TEST(WalSegmentTest, OnlyNamesThatPostgresArchivesAreAccepted) {
  struct Row {
    std::string_view name;
    std::optional<WalFileKind> kind;
    base::TimelineId timeline = 0;
  };
  const Row rows[] = {
      {"0000000100000000000000A3", WalFileKind::kSegment, 1},
      {"FFFFFFFF0000000000000001", WalFileKind::kSegment, 0xFFFFFFFF},
      {"0000000A00000000000000A3.partial", WalFileKind::kPartial, 10},
      {"00000002.history", WalFileKind::kHistory, 2},
      {"0000000100000000000000A3.00000028.backup", WalFileKind::kBackup, 1},
      {"00000001.history", WalFileKind::kHistory, 1},  // asked for by every recovery, never written
      {"00000000.history", std::nullopt},
      {"000000000000000000000001", std::nullopt},
      {"0000000100000000000000a3", std::nullopt},
      {"0000000100000000000000A", std::nullopt},
      {"0000000100000000000000A30", std::nullopt},
      {"0000000100000000000000A3.wal", std::nullopt},
      {"0000000100000000000000A3.partial.partial", std::nullopt},
      {"0000000100000000000000A3.0000028.backup", std::nullopt},
      {"0000000100000000000000A3.0000002g.backup", std::nullopt},
      {"0000000100000000000000A3.00000028.backup.", std::nullopt},
      {"0000000100000000000000A3.ready", std::nullopt},
      {"../00000100000000000000A3", std::nullopt},
      {"/etc/passwd", std::nullopt},
      {"../../../etc/passwd/..24.", std::nullopt},
      {"0000000100000000000000/3", std::nullopt},
      {std::string_view("0000000100000000000000A\0", 24), std::nullopt},
      {"..history", std::nullopt},
      {"RECOVERYXLOG", std::nullopt},
      {"archive_status", std::nullopt},
      {"", std::nullopt},
      {".", std::nullopt},
      {"..", std::nullopt},
  };
  for (const Row& row : rows) {
    const auto file = ParseWalFile(row.name);
    ASSERT_EQ(file.has_value(), row.kind.has_value()) << row.name;
    if (!file) continue;
    EXPECT_EQ(file->kind, *row.kind) << row.name;
    EXPECT_EQ(file->timeline, row.timeline) << row.name;
    EXPECT_EQ(file->name, row.name);
  }
}

TEST(WalSegmentTest, HeaderIsDecoded) {
  const TestSegment segment{.timeline = 3, .start = base::Lsn{7 * kTestSegmentSize}};
  ASSERT_OK_AND_ASSIGN(const WalSegmentHeader header,
                       DecodeWalSegmentHeader(BytesOf(segment.Bytes())));
  EXPECT_EQ(header.page_magic, 0xD110);
  EXPECT_EQ(header.timeline, 3u);
  EXPECT_EQ(header.address, segment.start);
  EXPECT_EQ(header.system_identifier, kTestSystem);
  EXPECT_EQ(header.segment_size, kTestSegmentSize);
  EXPECT_EQ(header.block_size, 8192u);
}

TEST(WalSegmentTest, HeaderCutAnywhereIsRejected) {
  const std::string bytes = TestSegment{}.Bytes();
  for (size_t length = 0; length < kWalSegmentHeaderSize; ++length) {
    EXPECT_THAT(DecodeWalSegmentHeader(BytesOf(bytes).first(length)),
                StatusIs(StatusCode::kInvalidArgument))
        << length;
  }
  EXPECT_OK(DecodeWalSegmentHeader(BytesOf(bytes).first(kWalSegmentHeaderSize)));
}

TEST(WalSegmentTest, PageMagicOfEachSupportedVersionIsAccepted) {
  for (const uint16_t magic : {0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118}) {
    EXPECT_OK(Check(TestSegment{}.Name(), TestSegment{.page_magic = magic}.Bytes())) << magic;
  }
  for (const uint16_t magic : {0x0000, 0xD101, 0xD105, 0xD200, 0xFFFF}) {
    EXPECT_THAT(Check(TestSegment{}.Name(), TestSegment{.page_magic = magic}.Bytes()),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("page magic")))
        << magic;
  }
}

TEST(WalSegmentTest, ShortPageHeaderIsRejected) {
  EXPECT_THAT(Check(TestSegment{}.Name(), TestSegment{.info = 0}.Bytes()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("long page header")));
}

TEST(WalSegmentTest, SegmentTellsItsCluster) {
  EXPECT_THAT(Check(TestSegment{}.Name(), TestSegment{}.Bytes(), 0), IsOkAndHolds(kTestSystem));
  EXPECT_THAT(Check(TestSegment{}.Name(), TestSegment{}.Bytes()), IsOkAndHolds(kTestSystem));
}

TEST(WalSegmentTest, SegmentOfForeignClusterIsRefused) {
  EXPECT_THAT(Check(TestSegment{}.Name(), TestSegment{.system_identifier = 42}.Bytes()),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("foreign cluster 42")));
}

TEST(WalSegmentTest, SegmentUnderAnotherNameIsRefused) {
  const TestSegment segment, next{.start = base::Lsn{2 * kTestSegmentSize}};
  EXPECT_THAT(Check(next.Name(), segment.Bytes()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("0/100000")));
}

TEST(WalSegmentTest, FirstSegmentOfTimelineMayStartWithPagesOfItsParent) {
  const TestSegment parent{.timeline = 1}, child{.timeline = 2};
  EXPECT_OK(Check(child.Name(), parent.Bytes()));
  EXPECT_THAT(Check(parent.Name(), child.Bytes()),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("timeline 2")));
}

TEST(WalSegmentTest, SegmentOfWrongLengthIsRefused) {
  std::string bytes = TestSegment{}.Bytes();
  bytes.pop_back();
  EXPECT_THAT(Check(TestSegment{}.Name(), bytes),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("1048575 bytes")));
  EXPECT_THAT(Check(TestSegment{}.Name(), ""), StatusIs(StatusCode::kInvalidArgument));
}

TEST(WalSegmentTest, PartialSegmentIsCheckedLikeASegment) {
  EXPECT_OK(Check(TestSegment{}.Name() + ".partial", TestSegment{}.Bytes()));
  EXPECT_THAT(
      Check(TestSegment{}.Name() + ".partial", TestSegment{.system_identifier = 42}.Bytes()),
      StatusIs(StatusCode::kFailedPrecondition));
}

TEST(WalSegmentTest, HistoryIsChecked) {
  EXPECT_OK(Check("00000002.history", "1\t0/3000000\tno recovery target specified\n"));
  EXPECT_OK(Check("00000005.history", "# comment\n\n1\t0/3000000\tx\n\n 3\t0/4000000\ty"));
  for (const std::string_view text : {"", "\n", "garbage", "1\n", "1\tx/y\tz", "2\t0/3000000\tx",
                                      "1\t0/1\tx\n1\t0/2\ty\n", "-1\t0/1\tx"}) {
    EXPECT_THAT(Check("00000002.history", text), StatusIs(StatusCode::kInvalidArgument)) << text;
  }
  EXPECT_THAT(Check("00000001.history", "1\t0/3000000\tx\n"),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Check("00000002.history", std::string(kMaxWalTextBytes + 1, '\n')),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(WalSegmentTest, BackupLabelIsChecked) {
  const std::string name = "000000010000000000000001.00000028.backup";
  EXPECT_OK(Check(name, "START WAL LOCATION: 0/100028 (file 000000010000000000000001)\n"));
  EXPECT_THAT(Check(name, "something else"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(Check(name, TestSegment{}.Bytes()), StatusIs(StatusCode::kInvalidArgument));
}

TEST(WalSegmentTest, TextFilesNeedToBeToldTheirCluster) {
  EXPECT_THAT(Check("00000002.history", "1\t0/3000000\tx\n", 0),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("--cluster")));
}

}  // namespace
}  // namespace metal::backup
