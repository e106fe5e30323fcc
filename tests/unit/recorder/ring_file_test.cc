#include "agent/recorder/ring_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::recorder {
namespace {

using ::testing::ElementsAreArray;

constexpr base::ByteCount kSize{kRingLeast};

// A frame that holds the number, and is of one of several sizes.
std::vector<std::byte> FrameOf(uint64_t number, size_t filler) {
  Entry entry(RecordKind::kEvent);
  entry.Add("number", static_cast<int64_t>(number)).Add("filler", std::string(filler, 'x'));
  std::vector<std::byte> frame(FrameSize(entry.payload().size()));
  EncodeFrame(entry, {absl::FromUnixSeconds(1'800'000'000), absl::Hours(1)}, frame);
  return frame;
}

void Append(RingWriter& ring, uint64_t number, size_t filler = 100) {
  auto frame = FrameOf(number, filler);
  ASSERT_OK(ring.Append(frame));
}

std::vector<uint64_t> NumbersIn(const std::string& path) {
  std::vector<uint64_t> numbers;
  uint64_t last = 0;
  EXPECT_OK(ReadRing(path, [&](const Record& record) {
    EXPECT_GT(record.sequence, last);
    last = record.sequence;
    numbers.push_back(std::stoull(std::string(record.Find("number"))));
    return true;
  }));
  return numbers;
}

std::vector<uint64_t> Range(uint64_t from, uint64_t through) {
  std::vector<uint64_t> numbers;
  for (uint64_t i = from; i <= through; ++i) numbers.push_back(i);
  return numbers;
}

TEST(RingFileTest, WhatWasWrittenIsReadInOrderAndGoesOnAfterReopening) {
  const testing::TempDir dir;
  const std::string path = dir.File("ring");
  {
    auto ring = RingWriter::Open(path, kSize);
    ASSERT_OK(ring);
    for (uint64_t i = 1; i <= 5; ++i) Append(*ring, i);
  }
  auto ring = RingWriter::Open(path, kSize);
  ASSERT_OK(ring);
  EXPECT_EQ(ring->next_sequence(), 6u);
  Append(*ring, 6);
  EXPECT_THAT(NumbersIn(path), ElementsAreArray(Range(1, 6)));
}

TEST(RingFileTest, TheOldestAreOverwrittenLapAfterLapWithFramesOfAnySize) {
  const testing::TempDir dir;
  const std::string path = dir.File("ring");
  auto ring = RingWriter::Open(path, kSize);
  ASSERT_OK(ring);
  for (uint64_t i = 1; i <= 1500; ++i) {
    Append(*ring, i, (i * 37) % 900);
    if (i % 50 != 0) continue;
    const auto numbers = NumbersIn(path);
    ASSERT_EQ(numbers.back(), i);
    ASSERT_THAT(numbers, ElementsAreArray(Range(numbers.front(), i)));
    ASSERT_GE(numbers.size(), std::min<size_t>(i, 25));
    if (i % 200 == 0) {
      ring = RingWriter::Open(path, kSize);
      ASSERT_OK(ring);
      ASSERT_EQ(ring->next_sequence(), i + 1);
    }
  }
}

TEST(RingFileTest, SeveralFramesGoOutInOneCallAlsoOverTheEnd) {
  const testing::TempDir dir;
  const std::string path = dir.File("ring");
  auto ring = RingWriter::Open(path, kSize);
  ASSERT_OK(ring);
  for (uint64_t i = 1; i < 400; i += 20) {
    std::vector<std::byte> batch;
    for (uint64_t each = i; each < i + 20; ++each) {
      const auto frame = FrameOf(each, each % 300);
      batch.insert(batch.end(), frame.begin(), frame.end());
    }
    ASSERT_OK(ring->Append(batch));
  }
  const auto numbers = NumbersIn(path);
  EXPECT_THAT(numbers, ElementsAreArray(Range(numbers.front(), 400)));
}

// The last record is torn at each of its bytes: on a new ring, and over what an earlier lap left.
void TearEverywhere(uint64_t before) {
  const testing::TempDir dir;
  const std::string path = dir.File("ring");
  std::string old;
  std::string whole;
  uint64_t first_kept = 0;
  {
    auto ring = RingWriter::Open(path, kSize);
    ASSERT_OK(ring);
    for (uint64_t i = 1; i <= before; ++i) Append(*ring, i);
    old = *base::ReadFile(path);
    Append(*ring, before + 1, 60);
    whole = *base::ReadFile(path);
    first_kept = NumbersIn(path).front();
  }
  size_t from = 0;
  while (old[from] == whole[from]) ++from;
  size_t to = old.size();
  while (old[to - 1] == whole[to - 1]) --to;
  ASSERT_LT(to - from, 200u);
  for (size_t torn = from; torn <= to; ++torn) {
    dir.Write("ring", whole.substr(0, torn) + old.substr(torn));
    const uint64_t last = torn == to ? before + 1 : before;
    const auto numbers = NumbersIn(path);
    ASSERT_THAT(numbers, ElementsAreArray(Range(numbers.front(), last))) << "torn at " << torn;
    ASSERT_LE(numbers.front(), first_kept) << "torn at " << torn;
    // And it goes on from there.
    auto ring = RingWriter::Open(path, kSize);
    ASSERT_OK(ring);
    ASSERT_EQ(ring->next_sequence(), last + 1) << "torn at " << torn;
    Append(*ring, last + 1);
    ASSERT_EQ(NumbersIn(path).back(), last + 1);
  }
}

TEST(RingFileTest, ARecordTornAtAnyByteLosesOnlyItself) { TearEverywhere(5); }
TEST(RingFileTest, ARecordTornAtAnyByteOverAnOldOneLosesOnlyItself) { TearEverywhere(700); }

TEST(RingFileTest, BytesThatLookLikeAFrameInsideOfATornOneAreNone) {
  const testing::TempDir dir;
  const std::string path = dir.File("ring");
  auto other = RingWriter::Open(dir.File("other"), kSize);
  ASSERT_OK(other);
  Append(*other, 99, 1);
  // A whole frame of another ring as a value: its CRC is of another id.
  const std::string foreign = base::ReadFile(dir.File("other"))->substr(kRingHeader, 64);
  auto ring = RingWriter::Open(path, kSize);
  ASSERT_OK(ring);
  Append(*ring, 1);
  Entry entry(RecordKind::kEvent);
  entry.Add("number", 2).Add("filler7", foreign);
  std::vector<std::byte> frame(FrameSize(entry.payload().size()));
  EncodeFrame(entry, {}, frame);
  ASSERT_OK(ring->Append(frame));
  std::string bytes = *base::ReadFile(path);
  bytes[bytes.find("filler7")] ^= 1;
  dir.Write("ring", bytes);
  EXPECT_THAT(NumbersIn(path), ElementsAreArray(Range(1, 1)));
}

TEST(RingFileTest, AFileOfAnotherSizeOrKindIsPutAside) {
  const testing::TempDir dir;
  const std::string path = dir.Write("ring", "something else");
  auto ring = RingWriter::Open(path, kSize);
  ASSERT_OK(ring);
  EXPECT_EQ(*base::ReadFile(path + ".old"), "something else");
  Append(*ring, 1);
  ring = RingWriter::Open(path, base::ByteCount{kSize.value + 4096});
  ASSERT_OK(ring);
  EXPECT_EQ(ring->next_sequence(), 1u);
  EXPECT_THAT(NumbersIn(path + ".old"), ElementsAreArray(Range(1, 1)));
}

TEST(RingFileTest, ADamagedHeaderIsNoRing) {
  const testing::TempDir dir;
  const std::string path = dir.Write("ring", std::string(kSize.value, '\0'));
  EXPECT_TRUE(absl::IsDataLoss(ReadRing(path, [](const Record&) { return true; })));
  EXPECT_TRUE(absl::IsNotFound(ReadRing(path + "x", [](const Record&) { return true; })));
}

TEST(EntryTest, WhatDoesNotFitIsCutAndTheRecordSaysSo) {
  Entry entry(RecordKind::kEvent);
  entry.Add("first", std::string(kPayloadMost, 'a')).Add("second", "b");
  EXPECT_TRUE(entry.cut());
  std::vector<std::byte> frame(FrameSize(entry.payload().size()));
  EncodeFrame(entry, {}, frame);
  const Record record = DecodeFrame(frame);
  EXPECT_TRUE(record.cut);
  EXPECT_EQ(record.Find("first").size(), kPayloadMost - 8);
  EXPECT_EQ(record.Find("second"), "");
}

}  // namespace
}  // namespace metal::recorder
