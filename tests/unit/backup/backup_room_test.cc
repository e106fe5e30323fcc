#include "agent/backup/backup_room.h"

#include "agent/base/filesystem_room.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::backup {
namespace {

using base::kMiB;
using ::metal::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

BackupInfo Backup(uint64_t stored, BackupState state = BackupState::kComplete) {
  BackupInfo info;
  info.label = "20261126T000000Z-F";
  info.state = state;
  info.header.stored_bytes = stored;
  return info;
}

TEST(BackupRoomTest, TheLastWholeBackupSaysWhatTheNextTakes) {
  EXPECT_EQ(ExpectedBytes({Backup(1000), Backup(9)}, 77, true), 1100u);
  EXPECT_EQ(ExpectedBytes({Backup(0, BackupState::kDamaged), Backup(10)}, 77, true), 11u);
  EXPECT_EQ(ExpectedBytes({}, 1000, true), 500u);
  EXPECT_EQ(ExpectedBytes({}, 1000, false), 1000u);
}

class BackupRoomOnDiskTest : public ::testing::Test {
 protected:
  BackupRoomOnDiskTest() { dir_.Write("data/base/1/1", std::string(4096, 'x')); }
  BackupRoom Room() const {
    return {.repository = dir_.path(), .data_directory = dir_.File("data")};
  }
  metal::testing::TempDir dir_;
};

TEST_F(BackupRoomOnDiskTest, WhatDoesNotFitIsRefusedWithItsReason) {
  const auto room = base::ReadFilesystemRoom(dir_.path());
  ASSERT_OK(room);
  EXPECT_OK(CheckBackupRoom(Room(), {Backup(kMiB)}));
  EXPECT_OK(CheckBackupRoom(Room(), {})) << "by the database, which is small";
  const absl::Status refused = CheckBackupRoom(Room(), {Backup(room->free_bytes)});
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                AllOf(HasSubstr("20261126T000000Z-F took"), HasSubstr("HINT: "),
                                      HasSubstr("--ignore-free-space"))));
  EXPECT_EQ(base::GetReason(refused)->reason, "NO_SPACE");
}

TEST_F(BackupRoomOnDiskTest, TheWatchGuardsASharedDiskAlone) {
  BackupRoom room = Room();
  BackupWatch quiet(room, base::RealClock());
  EXPECT_OK(quiet.Check());
  room.read_only_at = 1;  // 99 % are to stay free
  BackupWatch shared(room, base::RealClock());
  EXPECT_THAT(shared.Check(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("stopped before it fills")));
  EXPECT_OK(shared.Check()) << "it looks once a second";
  room.data_directory = "/proc";
  BackupWatch apart(room, base::RealClock());
  EXPECT_OK(apart.Check());
}

}  // namespace
}  // namespace metal::backup
