// Logs of vendors and of the specification that only some drives have: C0h, D0h, 00h.
#include "agent/disk/nvme/aws_log.h"
#include "agent/disk/nvme/ocp_log.h"
#include "agent/disk/nvme/supported_logs.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::disk {
namespace {

using metal::testing::LoadPage;
using metal::testing::Page;
using metal::testing::Put;
using metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST(OcpLogTest, EveryFieldIsReadFromItsPlace) {
  const auto log = DecodeOcpLog(LoadPage("ocp"));
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_EQ(log->media_bytes_written, 111'111'111u);
  EXPECT_EQ(log->media_bytes_read, 222'222'222u);
  EXPECT_EQ(log->bad_user_blocks, 12u);
  EXPECT_EQ(log->bad_user_blocks_left, 98);
  EXPECT_EQ(log->bad_system_blocks, 1u);
  EXPECT_EQ(log->bad_system_blocks_left, 100);
  EXPECT_EQ(log->xor_recoveries, 3u);
  EXPECT_EQ(log->uncorrectable_reads, 4u);
  EXPECT_EQ(log->soft_ecc_errors, 500u);
  EXPECT_EQ(log->end_to_end_detected, 7u);
  EXPECT_EQ(log->end_to_end_corrected, 6u);
  EXPECT_EQ(log->system_area_used_percent, 11);
  EXPECT_EQ(log->refreshes, 12'345u);
  EXPECT_EQ(log->most_erases, 900u);
  EXPECT_EQ(log->least_erases, 800u);
  EXPECT_EQ(log->throttling_events, 2);
  EXPECT_EQ(log->throttling_level, 1);
  EXPECT_EQ(log->pcie_correctable_errors, 1'234u);
  EXPECT_EQ(log->incomplete_shutdowns, 8u);
  EXPECT_EQ(log->free_blocks_percent, 55);
  EXPECT_EQ(log->capacitor_percent, 137);
  EXPECT_EQ(log->unaligned_io, 21u);
  EXPECT_EQ(log->power_loss_starts, 9u);
  EXPECT_EQ(log->endurance_bytes, 7'008'000'000'000'000u);
  EXPECT_EQ(log->log_version, 4);
  EXPECT_EQ(log->pcie_link_retrainings, 13u);
  EXPECT_EQ(log->dies, 64);
  EXPECT_EQ(log->dies_offline, 1);
  EXPECT_EQ(log->command_timeouts, 5u);
}

TEST(OcpLogTest, FieldsThatAnOlderPageDoesNotHaveAreAbsent) {
  Page page = LoadPage("ocp");
  Put(page, 494, 3, 2);
  auto log = DecodeOcpLog(page);
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->pcie_link_retrainings, 13u);
  EXPECT_EQ(log->command_timeouts, std::nullopt);
  Put(page, 494, 1, 2);
  Put(page, 128, 0xffff, 2);
  log = DecodeOcpLog(page);
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->pcie_link_retrainings, std::nullopt);
  EXPECT_EQ(log->capacitor_percent, std::nullopt);
}

TEST(OcpLogTest, PairsAreTakenInEitherOrder) {
  Page page = LoadPage("ocp");
  Put(page, 72, 6, 4);
  Put(page, 76, 7, 4);
  Put(page, 88, 800, 4);
  Put(page, 92, 900, 4);
  const auto log = DecodeOcpLog(page);
  ASSERT_TRUE(log.ok());
  EXPECT_EQ(log->end_to_end_detected, 7u);
  EXPECT_EQ(log->end_to_end_corrected, 6u);
  EXPECT_EQ(log->most_erases, 900u);
  EXPECT_EQ(log->least_erases, 800u);
}

TEST(OcpLogTest, APageOfAnotherVendorUnderThisNumberIsRejected) {
  Page page = LoadPage("ocp");
  page[511] = std::byte{0};
  EXPECT_THAT(DecodeOcpLog(page),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("another GUID")));
  EXPECT_THAT(DecodeOcpLog(Page(513)), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(AwsLogTest, EveryFieldIsReadFromItsPlace) {
  const auto log = DecodeAwsLog(LoadPage("aws"));
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_FALSE(log->instance_store);
  EXPECT_EQ(log->read_ops, 1'000u);
  EXPECT_EQ(log->write_ops, 2'000u);
  EXPECT_EQ(log->read_bytes, 4'096'000u);
  EXPECT_EQ(log->write_bytes, 8'192'000u);
  EXPECT_EQ(log->read_time, absl::Milliseconds(1'500));
  EXPECT_EQ(log->write_time, absl::Milliseconds(2'500));
  EXPECT_EQ(log->volume_over_iops, absl::Microseconds(11));
  EXPECT_EQ(log->volume_over_throughput, absl::Microseconds(12));
  EXPECT_EQ(log->instance_over_iops, absl::Microseconds(13));
  EXPECT_EQ(log->instance_over_throughput, absl::Microseconds(14));
  EXPECT_EQ(log->queue_length, 3u);
  ASSERT_EQ(log->read_bins.size(), 2u);
  EXPECT_EQ(log->read_bins[1].lower_us, 256u);
  EXPECT_EQ(log->read_bins[1].upper_us, 512u);
  EXPECT_EQ(log->read_bins[1].count, 100u);
  ASSERT_EQ(log->write_bins.size(), 1u);
  EXPECT_EQ(log->write_bins[0].count, 2'000u);
}

TEST(AwsLogTest, InstanceStoreHasNoLimitsOfAVolume) {
  Page page = LoadPage("aws");
  Put(page, 0, 0xec2c0d7e, 4);
  Put(page, 512, UINT64_MAX, 8);  // more bins than there is room for
  const auto log = DecodeAwsLog(page);
  ASSERT_TRUE(log.ok());
  EXPECT_TRUE(log->instance_store);
  EXPECT_EQ(log->volume_over_iops, absl::ZeroDuration());
  EXPECT_EQ(log->instance_over_iops, absl::Microseconds(13));
  EXPECT_EQ(log->read_bins.size(), 64u);
}

TEST(AwsLogTest, WhatIsNotAmazonsIsRejected) {
  EXPECT_THAT(DecodeAwsLog(Page(4096)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("magic number 0x00000000")));
  EXPECT_THAT(DecodeAwsLog(Page(512)), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(SupportedLogsTest, BitsAreWhatTheDriveLists) {
  const auto logs = DecodeSupportedLogs(LoadPage("supported_logs"));
  ASSERT_TRUE(logs.ok());
  EXPECT_EQ(logs->count(), 6u);
  for (const size_t id : {0x01u, 0x02u, 0x03u, 0x06u, 0x0du, 0xc0u}) EXPECT_TRUE(logs->test(id));
  EXPECT_THAT(DecodeSupportedLogs(Page(512)), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace metal::disk
