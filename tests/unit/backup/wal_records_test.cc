#include "agent/backup/wal_records.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

constexpr base::Lsn kFrom{3 * kTestSegmentSize + 40};

class WalRecordsTest : public ::testing::Test {
 protected:
  // Bodies of manager 5's records in [from, to), WAL given in pieces of `piece` bytes.
  absl::StatusOr<std::vector<std::string>> Read(std::string_view wal, base::Lsn from, base::Lsn to,
                                                size_t piece) {
    std::vector<std::string> found;
    WalRecords::Options options;
    options.from = from;
    options.to = to;
    options.segment_size = kTestSegmentSize;
    options.resource_manager = 5;
    WalRecords records(options, [&](const WalRecord& record) {
      found.emplace_back(reinterpret_cast<const char*>(record.body.data()), record.body.size());
      return absl::OkStatus();
    });
    for (size_t at = 0; at < wal.size(); at += piece) {
      METAL_RETURN_IF_ERROR(records.Add(BytesOf(wal.substr(at, piece))));
    }
    METAL_RETURN_IF_ERROR(records.Finish());
    return found;
  }
  // To whole pages.
  static std::string Padded(const TestWal& wal) {
    std::string bytes = wal.bytes();
    bytes.resize((bytes.size() + 8191) / 8192 * 8192);
    return bytes;
  }
};

TEST_F(WalRecordsTest, GivesRecordsOfOneManagerWhereverPagesCutThem) {
  // Every offset at which a page can end inside of a record, its header included.
  for (size_t first = 0; first < 160; first += 8) {
    TestWal wal(kFrom);
    wal.Add(0, 0, std::string(8192 - 40 - 24 - 160 + first, 'x'));
    wal.Add(5, 0x10, "dropped");
    wal.Add(5, 0, "the body of a record that is wanted");
    wal.Add(10, 0, std::string(30000, 'y'));
    wal.Add(5, 0, std::string(20000, 'z'));
    for (const size_t piece : {size_t{1} << 20, size_t{8192}, size_t{1000}}) {
      const auto found = Read(Padded(wal), kFrom, wal.end(), piece);
      ASSERT_OK(found);
      EXPECT_THAT(*found, ElementsAre("dropped", "the body of a record that is wanted",
                                      std::string(20000, 'z')))
          << first;
    }
  }
}

TEST_F(WalRecordsTest, GoesOnAfterASegmentThatWasSwitched) {
  TestWal wal(kFrom);
  wal.Add(5, 0, "before");
  wal.Switch();
  wal.Add(5, 0, "after");
  const auto found = Read(Padded(wal), kFrom, wal.end(), 8192);
  ASSERT_OK(found);
  EXPECT_THAT(*found, ElementsAre("before", "after"));
}

TEST_F(WalRecordsTest, StartsInTheMiddleAndGivesNothingFromTheEndOn) {
  TestWal wal(kFrom);
  wal.Add(5, 0, "too early");
  wal.Add(0, 0, std::string(40000, 'x'));
  const base::Lsn from = wal.Add(5, 0, "first");
  const base::Lsn to = wal.Add(5, 0, "too late");
  const auto found = Read(Padded(wal), from, to, 8192);
  ASSERT_OK(found);
  EXPECT_THAT(*found, ElementsAre("first"));
}

TEST_F(WalRecordsTest, WalThatEndsTooEarlyOrLosesItsTrackIsRefused) {
  TestWal wal(kFrom);
  wal.Add(0, 0, std::string(40000, 'x'));
  const base::Lsn later{wal.end().value + kTestSegmentSize};
  EXPECT_THAT(Read(Padded(wal).substr(0, 3 * 8192), kFrom, wal.end(), 8192),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("the WAL ends")));
  EXPECT_THAT(Read(Padded(wal), kFrom, later, 8192), StatusIs(absl::StatusCode::kDataLoss));
  std::string torn = Padded(wal);
  torn[2 * 8192 + 16] ^= 1;  // the length that the page says is missing
  EXPECT_THAT(Read(torn, kFrom, wal.end(), 8192),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("are missing")));
  std::string backwards = Padded(wal);
  backwards[40 + 15] = 1;  // the predecessor's position
  EXPECT_THAT(Read(backwards, kFrom, wal.end(), 8192),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("predecessor")));
}

TEST_F(WalRecordsTest, ARecordThatWasNeverFinishedIsLeftOut) {
  TestWal wal(kFrom);
  wal.Add(5, 0, std::string(12000, 'x'));
  std::string bytes = Padded(wal);
  // The server died while it wrote it: the second page begins with another record.
  TestWal other({kFrom.value - 40 + 8192 + 24});
  other.Add(5, 0, "new");
  bytes.replace(8192, 8192, Padded(other).substr(8192, 8192));
  bytes[8192 + 2] = 0x08;
  const auto found = Read(bytes, kFrom, other.end(), 8192);
  ASSERT_OK(found);
  EXPECT_THAT(*found, ElementsAre("new"));
}

TEST_F(WalRecordsTest, MainDataStandsBehindAnOriginAndATransaction) {
  const auto data = [](std::string_view body) -> absl::StatusOr<std::string> {
    WalRecord record;
    record.body = BytesOf(body);
    METAL_ASSIGN_OR_RETURN(const auto found, MainDataOf(record));
    return std::string(reinterpret_cast<const char*>(found.data()), found.size());
  };
  using std::string_literals::operator""s;
  EXPECT_THAT(*data("\xff\x03"
                    "abc"s),
              "abc");
  EXPECT_THAT(*data("\xfe\x03\0\0\0"
                    "abc"s),
              "abc");
  EXPECT_THAT(*data("\xfd\x01\x02\xfc\x01\x02\x03\x04\xff\x01"
                    "a"s),
              "a");
  for (const std::string& bad : {""s, "\xff"s,
                                 "\xff\x03"
                                 "ab"s,
                                 "\xff\x01"
                                 "ab"s,
                                 "\xfe\x01"s, "\0\0\0\0\0\0"s, "\xfd\x01"s}) {
    EXPECT_THAT(data(bad), StatusIs(absl::StatusCode::kDataLoss)) << ::testing::PrintToString(bad);
  }
}

}  // namespace
}  // namespace metal::backup
