#include "agent/disk/probe_block.h"

#include <array>
#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::disk {
namespace {

using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Optional;

using Block = std::array<std::byte, kProbeBlockSize>;

Block Stamped(const ProbeStamp& stamp) {
  Block block{};
  StampBlock(stamp, block);
  return block;
}

const ProbeStamp kStamp{.node = "db1", .role = "wal", .block = 7, .sequence = 100};

TEST(ProbeBlockTest, WhatWasWrittenIsAccepted) {
  EXPECT_FALSE(CheckBlock(kStamp, Stamped(kStamp)).has_value());
}

TEST(ProbeBlockTest, ALaterWriteIsAcceptedAndAnEarlierOneIsLost) {
  ProbeStamp later = kStamp;
  later.sequence = 101;
  EXPECT_FALSE(CheckBlock(kStamp, Stamped(later)).has_value());
  EXPECT_THAT(CheckBlock(later, Stamped(kStamp)),
              Optional(Field(&BlockProblem::text, HasSubstr("lost write"))));
}

TEST(ProbeBlockTest, ZerosAreALostWrite) {
  EXPECT_THAT(CheckBlock(kStamp, Block{}),
              Optional(Field(&BlockProblem::text, HasSubstr("lost write"))));
}

TEST(ProbeBlockTest, AnotherBlocksStampIsAMisdirectedWrite) {
  ProbeStamp other = kStamp;
  other.block = 8;
  EXPECT_THAT(CheckBlock(kStamp, Stamped(other)),
              Optional(Field(&BlockProblem::text, HasSubstr("misdirected write: holds block 8"))));
}

TEST(ProbeBlockTest, AnotherWriterIsTold) {
  ProbeStamp other = kStamp;
  other.node = "db";
  EXPECT_TRUE(CheckBlock(kStamp, Stamped(other)).has_value());
  other = kStamp;
  other.role = "wal2";
  EXPECT_TRUE(CheckBlock(kStamp, Stamped(other)).has_value());
}

TEST(ProbeBlockTest, EverySingleChangedBitIsFound) {
  const Block good = Stamped(kStamp);
  for (size_t bit = 0; bit < kProbeBlockSize * 8; bit += 37) {
    Block bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
    EXPECT_TRUE(CheckBlock(kStamp, bad).has_value()) << "bit " << bit;
  }
}

TEST(ProbeBlockTest, ATornWriteIsFound) {
  ProbeStamp before = kStamp;
  before.sequence = 99;
  for (size_t sectors = 1; sectors < 8; ++sectors) {
    Block torn = Stamped(before);
    const Block after = Stamped(kStamp);
    std::memcpy(torn.data(), after.data(), sectors * 512);
    EXPECT_TRUE(CheckBlock(kStamp, torn).has_value()) << sectors << " sectors written";
  }
}

TEST(ProbeBlockTest, LongNamesAreCut) {
  const std::string name(200, 'n');
  const ProbeStamp stamp{.node = name, .role = name, .block = 1, .sequence = 1};
  EXPECT_FALSE(CheckBlock(stamp, Stamped(stamp)).has_value());
}

}  // namespace
}  // namespace metal::disk
