#include "agent/backup/page_recheck.h"

#include <cstring>
#include <vector>

#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using testing::StatusIs;

constexpr base::BlockNumber kBlock = 7;

class PageRecheckTest : public ::testing::Test {
 protected:
  // A page with this LSN; damaged after its checksum was set.
  static std::string Page(uint64_t lsn, bool damaged, char mark = 'x') {
    std::string page = TestPages(1, kBlock, 1, lsn);
    if (damaged) page[5000] = static_cast<char>(page[5000] ^ mark);
    return page;
  }

  RecheckVerdict Check(std::string& page) {
    PageRechecker::Options options;
    options.start_lsn = base::Lsn{0x2000};
    options.current_lsn = [] { return base::Lsn{0x3000}; };
    options.read = [this](const std::string&, bool, uint64_t,
                          std::span<std::byte> out) -> absl::StatusOr<size_t> {
      const std::string& next = rereads_[std::min(reads_++, rereads_.size() - 1)];
      std::memcpy(out.data(), next.data(), next.size());
      return next.size();
    };
    PageRechecker rechecker(std::move(options), clock_);
    std::string scratch(stream::kPageSize, '\0');
    const auto verdict =
        rechecker.Check({"base/1/16384", true, 0, kBlock}, std::as_writable_bytes(std::span(page)),
                        std::as_writable_bytes(std::span(scratch)));
    EXPECT_OK(verdict);
    return *verdict;
  }

  testing::SimulatedClock clock_;
  std::vector<std::string> rereads_;
  size_t reads_ = 0;
};

TEST_F(PageRecheckTest, AValidReReadReplacesThePage) {
  std::string page = Page(0x1000, true);
  rereads_ = {Page(0x2500, false)};
  EXPECT_EQ(Check(page), RecheckVerdict::kValid);
  EXPECT_EQ(page, rereads_[0]);
}

TEST_F(PageRecheckTest, ChangedBytesAreInFlight) {
  std::string page = Page(0x1000, true, 1);
  rereads_ = {Page(0x1000, true, 2)};
  EXPECT_EQ(Check(page), RecheckVerdict::kInFlight);
}

TEST_F(PageRecheckTest, SameBytesWithAnOldLsnAreCorrupt) {
  std::string page = Page(0x1000, true);
  rereads_ = {page};
  EXPECT_EQ(Check(page), RecheckVerdict::kUnchanged);
  EXPECT_EQ(reads_, 1u);
}

TEST_F(PageRecheckTest, AnLsnAheadOfTheServerIsCorrupt) {
  std::string page = Page(0x3001, true);
  rereads_ = {page};
  EXPECT_EQ(Check(page), RecheckVerdict::kLsnAhead);
}

TEST_F(PageRecheckTest, AnLsnInTheWindowIsReadAgainUntilItVerifies) {
  std::string page = Page(0x2800, true);
  rereads_ = {page, page, Page(0x2800, false)};
  const absl::Time before = clock_.Now();
  EXPECT_EQ(Check(page), RecheckVerdict::kValid);
  EXPECT_GE(clock_.Now() - before, absl::Milliseconds(200));
}

TEST_F(PageRecheckTest, AnLsnInTheWindowThatStaysBadIsLeftToReplay) {
  std::string page = Page(0x3000, true);
  rereads_ = {page};
  EXPECT_EQ(Check(page), RecheckVerdict::kInWindow);
  EXPECT_EQ(reads_, 6u);
}

TEST_F(PageRecheckTest, AFileThatIsGoneIsInFlight) {
  std::string page = Page(0x1000, true);
  rereads_ = {""};
  EXPECT_EQ(Check(page), RecheckVerdict::kInFlight);
}

TEST_F(PageRecheckTest, PausesAreBoundedForAllPagesTogether) {
  PageRechecker::Options options;
  options.start_lsn = base::Lsn{0x2000};
  options.current_lsn = [] { return base::Lsn{0x3000}; };
  std::string page = Page(0x2800, true);
  options.read = [&](const std::string&, bool, uint64_t,
                     std::span<std::byte> out) -> absl::StatusOr<size_t> {
    std::memcpy(out.data(), page.data(), page.size());
    return page.size();
  };
  options.pause_budget = absl::Seconds(1);
  PageRechecker rechecker(std::move(options), clock_);
  std::string scratch(stream::kPageSize, '\0');
  const absl::Time before = clock_.Now();
  for (int i = 0; i < 100; ++i) {
    EXPECT_OK(rechecker.Check({"base/1/16384", true, 0, kBlock},
                              std::as_writable_bytes(std::span(page)),
                              std::as_writable_bytes(std::span(scratch))));
  }
  EXPECT_LE(clock_.Now() - before, absl::Seconds(1));
}

TEST_F(PageRecheckTest, ALostServerIsAnError) {
  PageRechecker::Options options;
  std::string page = Page(0x1000, true);
  options.current_lsn = []() -> absl::StatusOr<base::Lsn> {
    return absl::UnavailableError("connection lost");
  };
  options.read = [&](const std::string&, bool, uint64_t,
                     std::span<std::byte> out) -> absl::StatusOr<size_t> {
    std::memcpy(out.data(), page.data(), page.size());
    return page.size();
  };
  PageRechecker rechecker(std::move(options), clock_);
  std::string scratch(stream::kPageSize, '\0');
  EXPECT_THAT(
      rechecker.Check({"base/1/16384", true, 0, kBlock}, std::as_writable_bytes(std::span(page)),
                      std::as_writable_bytes(std::span(scratch))),
      StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace metal::backup
