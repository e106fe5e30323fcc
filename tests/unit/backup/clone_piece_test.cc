#include "agent/backup/clone_piece.h"

#include "agent/base/crc32c.h"
#include "agent/stream/page_checksum.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

constexpr base::BlockNumber kFirst = 131072;

// Pages of a second segment, with a bit turned in the page `harmed`; the CRC is of the turned
// bytes, as it is where they turned before the source read them once more.
class ClonePieceTest : public ::testing::Test {
 protected:
  absl::Status Verify(size_t harmed) {
    std::string pages = TestPages(13, kFirst, 3);
    pages[harmed * stream::kPageSize + 4000] ^= 4;
    const auto bytes = std::as_bytes(std::span(pages));
    piece_.length = static_cast<uint32_t>(pages.size());
    piece_.crc32c = base::Crc32c(bytes) ^ crc_flip_;
    return VerifyPiece(piece_, bytes);
  }
  ClonePiece piece_{
      .path = "base/5/16384.1", .checked = true, .first_block = kFirst, .unsettled = {}};
  uint32_t crc_flip_ = 0;
};

TEST_F(ClonePieceTest, AnyPageThatDoesNotVerifyIsNamed) {
  for (const size_t harmed : {0, 3, 4, 12}) {
    EXPECT_THAT(
        Verify(harmed),
        StatusIs(absl::StatusCode::kDataLoss,
                 HasSubstr(fmt::format("base/5/16384.1 block {} arrived", kFirst + harmed))));
  }
}

TEST_F(ClonePieceTest, PagesThatWereBeingWrittenAreLetIn) {
  piece_.unsettled = {kFirst + 2, kFirst + 7};
  EXPECT_OK(Verify(2));
  EXPECT_OK(Verify(7));
  EXPECT_FALSE(Verify(6).ok());
}

TEST_F(ClonePieceTest, WithoutPageChecksumsTheCrcDecides) {
  piece_.checked = false;
  EXPECT_OK(Verify(5));
  crc_flip_ = 1;
  EXPECT_THAT(Verify(5), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("at 0 does not match")));
}

TEST_F(ClonePieceTest, PagesAloneAreNotEnough) {
  piece_.unsettled = {kFirst};
  crc_flip_ = 0x80000000;
  EXPECT_FALSE(Verify(0).ok());
}

}  // namespace
}  // namespace metal::backup
