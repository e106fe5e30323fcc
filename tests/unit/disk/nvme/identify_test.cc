#include "agent/disk/nvme/identify.h"

#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::disk {
namespace {

using metal::testing::LoadPage;
using metal::testing::Page;
using metal::testing::Put;
using metal::testing::StatusIs;

TEST(IdentifyControllerTest, EveryFieldIsReadFromItsPlace) {
  const auto id = DecodeIdentifyController(LoadPage("identify_controller"));
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(id->pci_vendor, 0x144d);
  EXPECT_EQ(id->serial, "METAL0001");
  EXPECT_EQ(id->model, "Example Data Centre SSD");
  EXPECT_EQ(id->firmware, "EX1A3Q");
  EXPECT_EQ(id->max_transfer_exponent, 7);
  EXPECT_EQ(id->version, 0x00020000u);
  EXPECT_TRUE(id->can_self_test);
  EXPECT_TRUE(id->has_log_offsets);
  EXPECT_TRUE(id->has_persistent_event_log);
  EXPECT_TRUE(id->lists_its_logs);
  EXPECT_EQ(id->error_log_entries, 64);
  EXPECT_EQ(id->warning_celsius, 70);
  EXPECT_EQ(id->critical_celsius, 85);
  EXPECT_EQ(id->total_capacity.value, 1'920'383'410'176u);
  EXPECT_EQ(id->extended_self_test, absl::Minutes(90));
  EXPECT_TRUE(id->volatile_write_cache);
  EXPECT_EQ(id->atomic_write_blocks, 1024u);
  EXPECT_EQ(id->atomic_write_power_fail_blocks, 32u);
}

TEST(IdentifyControllerTest, UnprintableTextIsMadeHarmless) {
  Page data(kIdentifySize);
  size_t at = 4;
  for (const char c : std::string("AB\x01\x1b[31m            ")) Put(data, at++, c, 1);
  const auto id = DecodeIdentifyController(data);
  ASSERT_TRUE(id.ok());
  EXPECT_EQ(id->serial, "AB??[31m");
  EXPECT_EQ(id->model, "");
  EXPECT_EQ(id->warning_celsius, std::nullopt);
  EXPECT_FALSE(id->lists_its_logs);
}

TEST(IdentifyNamespaceTest, EveryFieldIsReadFromItsPlace) {
  const auto ns = DecodeIdentifyNamespace(LoadPage("identify_namespace"));
  ASSERT_TRUE(ns.ok()) << ns.status();
  EXPECT_EQ(ns->size_blocks, 468'843'606u);
  EXPECT_EQ(ns->capacity_blocks, 468'843'605u);
  EXPECT_EQ(ns->used_blocks, 123'456u);
  EXPECT_EQ(ns->block_size, 4096u);
  EXPECT_EQ(ns->metadata_size, 8u);
  EXPECT_EQ(ns->protection, 1);
  EXPECT_EQ(ns->atomic_write_power_fail_blocks, 16u);
  EXPECT_EQ(ns->globally_unique_id, "36344b30521000010025384500000001");
}

TEST(IdentifyNamespaceTest, TheFormatInUseMayBeBeyondTheSixteenth) {
  Page data(kIdentifySize);
  Put(data, 26, 0x21, 1);  // format 17
  Put(data, 128 + 4 * 17, 0x00090000, 4);
  const auto ns = DecodeIdentifyNamespace(data);
  ASSERT_TRUE(ns.ok());
  EXPECT_EQ(ns->block_size, 512u);
  EXPECT_EQ(ns->atomic_write_power_fail_blocks, std::nullopt);
  EXPECT_EQ(ns->globally_unique_id, "");
}

TEST(IdentifyNamespaceTest, AnImpossibleBlockSizeIsUnknown) {
  Page data(kIdentifySize);
  for (const uint32_t exponent : {0u, 8u, 32u, 255u}) {
    Put(data, 128, uint64_t{exponent} << 16, 4);
    const auto ns = DecodeIdentifyNamespace(data);
    ASSERT_TRUE(ns.ok());
    EXPECT_EQ(ns->block_size, 0u);
  }
}

TEST(IdentifyTest, AnyOtherSizeIsRejected) {
  EXPECT_THAT(DecodeIdentifyController(Page(4095)), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(DecodeIdentifyNamespace(Page(4097)), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace metal::disk
