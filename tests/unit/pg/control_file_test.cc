#include "agent/pg/control_file.h"

#include <cstring>

#include "agent/base/crc32c.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/pg/golden_control_files.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

class ControlFileGoldenTest : public ::testing::TestWithParam<golden::ControlGolden> {};

TEST_P(ControlFileGoldenTest, FieldsAreThoseOfPgControldata) {
  const golden::ControlGolden& golden = GetParam();
  ASSERT_OK_AND_ASSIGN(const ControlFile control, DecodeControlFile(golden::Bytes(golden)));
  EXPECT_EQ(control.control_version, golden.control_version);
  EXPECT_EQ(control.catalog_version, golden.catalog_version);
  EXPECT_EQ(MajorVersionOf(control), golden.major);
  EXPECT_EQ(control.system_identifier, golden.system_identifier);
  EXPECT_EQ(ControlStateName(control.state), golden.state);
  EXPECT_TRUE(control.clean());
  EXPECT_EQ(control.checkpoint.ToString(), golden.checkpoint);
  EXPECT_EQ(control.redo.ToString(), golden.redo);
  EXPECT_EQ(control.timeline, golden.timeline);
  EXPECT_EQ(control.previous_timeline, golden.previous_timeline);
  EXPECT_EQ(control.min_recovery.ToString(), golden.min_recovery);
  EXPECT_EQ(control.max_connections, golden.max_connections);
  EXPECT_EQ(control.max_wal_senders, golden.max_wal_senders);
  EXPECT_EQ(WalLevelName(control.wal_level), "replica");
  EXPECT_TRUE(control.wal_log_hints);
  EXPECT_TRUE(control.full_page_writes);
  EXPECT_EQ(control.block_size, 8192u);
  EXPECT_EQ(control.segment_blocks, 131072u);
  EXPECT_EQ(control.wal_block_size, 8192u);
  EXPECT_EQ(control.wal_segment_size, 16 * base::kMiB);
  EXPECT_EQ(control.checksum_version, 1u);
}

TEST_P(ControlFileGoldenTest, EveryFlippedBitIsNoticed) {
  const std::vector<std::byte> good = golden::Bytes(GetParam());
  const size_t covered = GetParam().control_version >= 1800 ? 296 : 292;
  for (size_t bit = 0; bit < covered * 8; ++bit) {
    std::vector<std::byte> bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_FALSE(DecodeControlFile(bad).ok()) << "bit " << bit;
  }
}

TEST_P(ControlFileGoldenTest, EveryTruncationIsRejected) {
  const std::vector<std::byte> good = golden::Bytes(GetParam());
  const size_t needed = GetParam().control_version >= 1800 ? 296 : 292;
  for (size_t size = 0; size < needed; ++size) {
    EXPECT_THAT(DecodeControlFile(std::span(good).first(size)),
                StatusIs(absl::StatusCode::kDataLoss))
        << size;
  }
  EXPECT_OK(DecodeControlFile(std::span(good).first(needed)));
}

INSTANTIATE_TEST_SUITE_P(Versions, ControlFileGoldenTest,
                         ::testing::ValuesIn(golden::kControlFiles), [](const auto& parameter) {
                           return "Postgres" + std::to_string(parameter.param.major);
                         });

// Bytes with one field changed and the CRC made right again.
std::vector<std::byte> WithField(size_t offset, uint32_t value) {
  std::vector<std::byte> bytes = golden::Bytes(golden::kControlFiles[1]);
  std::memcpy(bytes.data() + offset, &value, sizeof value);
  const uint32_t crc = base::Crc32c(std::span(bytes).first(288));
  std::memcpy(bytes.data() + 288, &crc, sizeof crc);
  return bytes;
}

TEST(ControlFileTest, UnknownVersionIsRefusedByName) {
  EXPECT_THAT(DecodeControlFile(WithField(8, 1201)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("version 1201")));
}

TEST(ControlFileTest, FieldsThatNoServerWritesAreRefused) {
  EXPECT_THAT(DecodeControlFile(WithField(16, 9)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("state is 9")));
  EXPECT_THAT(DecodeControlFile(WithField(216, 8191)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("block size")));
  EXPECT_THAT(DecodeControlFile(WithField(228, 3 << 20)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("WAL segment size")));
  EXPECT_THAT(DecodeControlFile(WithField(220, 0)),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("relation segment")));
}

TEST(ControlFileTest, EveryStateHasPgControldatasName) {
  const char* const names[] = {"starting up",   "shut down",         "shut down in recovery",
                               "shutting down", "in crash recovery", "in archive recovery",
                               "in production"};
  for (uint32_t state = 0; state < 7; ++state) {
    ASSERT_OK_AND_ASSIGN(const ControlFile control, DecodeControlFile(WithField(16, state)));
    EXPECT_EQ(ControlStateName(control.state), names[state]);
    EXPECT_EQ(control.clean(), control.state == ControlState::kShutDown) << "of a primary";
  }
}

TEST(ControlFileTest, ACrashRecoveryThatWasStoppedIsNotClean) {
  ControlFile control;
  control.state = ControlState::kShutDownInRecovery;
  EXPECT_FALSE(control.clean());
  control.min_recovery = base::Lsn{0x3000000};
  EXPECT_TRUE(control.clean()) << "a standby has one from the start";
}

TEST(ControlFileTest, ReadGivesUpOnASteadyBadFileAndNamesIt) {
  testing::TempDir dir;
  std::vector<std::byte> bytes = golden::Bytes(golden::kControlFiles[1]);
  dir.Write("global/pg_control", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  EXPECT_OK(ReadControlFile(dir.path()));
  bytes[100] ^= std::byte{1};
  dir.Write("global/pg_control", {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  EXPECT_THAT(ReadControlFile(dir.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("global/pg_control")));
}

TEST(ControlFileTest, AMissingFileIsNotFound) {
  testing::TempDir dir;
  EXPECT_THAT(ReadControlFile(dir.path()), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace metal::pg
