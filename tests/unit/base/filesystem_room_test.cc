#include "agent/base/filesystem_room.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::base {
namespace {

FilesystemRoom Room(uint64_t used, uint64_t free) {
  FilesystemRoom room;
  room.used_bytes = used;
  room.free_bytes = free;
  return room;
}

TEST(FilesystemRoomTest, IsReadAsDfCounts) {
  const auto room = ReadFilesystemRoom("/");
  ASSERT_OK(room);
  EXPECT_GT(room->used_bytes, 0u);
  EXPECT_LE(room->used_bytes + room->free_bytes, room->size_bytes);
  EXPECT_FALSE(ReadFilesystemRoom("/no/such/place").ok());
}

TEST(FilesystemRoomTest, Percent) {
  EXPECT_EQ(UsedPercent(Room(0, 0)), 0);
  EXPECT_EQ(UsedPercent(Room(97, 3)), 97);
  FilesystemRoom room;
  EXPECT_EQ(InodesUsedPercent(room), 0) << "without a limit";
  room.inodes = 100;
  room.free_inodes = 25;
  EXPECT_EQ(InodesUsedPercent(room), 75);
}

TEST(FilesystemRoomTest, WhatIsToStayFree) {
  EXPECT_EQ(LeastFree(Room(900 * kGiB, 100 * kGiB), 97).value, 30 * kGiB);
  EXPECT_EQ(LeastFree(Room(900 * kGiB, 100 * kGiB), 0).value, 64 * kMiB);
  EXPECT_EQ(LeastFree(Room(kGiB, 0), 97).value, 64 * kMiB);
  EXPECT_EQ(LeastFree(Room(200 * kMiB, 0), 97).value, 20 * kMiB);
  FilesystemRoom room;
  EXPECT_EQ(LeastFreeInodes(room), 0u);
  room.inodes = 10'000;
  EXPECT_EQ(LeastFreeInodes(room), 100u);
  room.inodes = 10'000'000;
  EXPECT_EQ(LeastFreeInodes(room), 1000u);
}

}  // namespace
}  // namespace metal::base
