#include "agent/disk/space/reserve_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

using base::kGiB;
using base::kMiB;
using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::Ge;
using ::testing::HasSubstr;

class ReserveFileTest : public ::testing::Test {
 protected:
  metal::testing::TempDir dir_;
};

TEST_F(ReserveFileTest, LiesBesideTheDirectoryAlsoThroughALink) {
  ASSERT_OK(base::MakeDirectories(dir_.File("disk/data")));
  ASSERT_EQ(symlink(dir_.File("disk/data").c_str(), dir_.File("link").c_str()), 0);
  EXPECT_EQ(ReservePlaceOf(dir_.File("link")).path, dir_.File("disk/.metal-reserve-data"));
  const ReservePlace root = ReservePlaceOf("/proc");
  EXPECT_EQ(root.path, "");
  EXPECT_THAT(root.reason, HasSubstr("HINT: "));
  EXPECT_EQ(ReservePlaceOf(dir_.File("absent")).path, "");
}

TEST_F(ReserveFileTest, IsAllocatedAndGivenBack) {
  const std::string path = dir_.File("reserve");
  EXPECT_THAT(ReserveKept(path), IsOkAndHolds(0u));
  EXPECT_THAT(GiveReserveBack(path), IsOkAndHolds(0u));
  ASSERT_OK(MakeReserve(path, {2 * kMiB}));
  EXPECT_THAT(ReserveKept(path), IsOkAndHolds(Ge(2 * kMiB)));
  ASSERT_OK(MakeReserve(path, {kMiB}));
  EXPECT_THAT(GiveReserveBack(path), IsOkAndHolds(Ge(kMiB)));
  EXPECT_FALSE(base::PathExists(path));
}

TEST_F(ReserveFileTest, ALinkInItsPlaceIsReplacedAndNotFollowed) {
  const std::string victim = dir_.Write("victim", "kept");
  const std::string path = dir_.File("reserve");
  ASSERT_EQ(symlink(victim.c_str(), path.c_str()), 0);
  ASSERT_OK(MakeReserve(path, {kMiB}));
  EXPECT_THAT(base::ReadFile(victim), IsOkAndHolds(std::string("kept")));
}

TEST_F(ReserveFileTest, NothingIsLeftOfOneThatDoesNotFit) {
  const std::string path = dir_.File("reserve");
  const auto room = base::ReadFilesystemRoom(dir_.path());
  ASSERT_OK(room);
  // It is not tried: the kernel would first give all that is free.
  EXPECT_THAT(MakeReserve(path, {room->free_bytes + kGiB}),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("No space left")));
  EXPECT_FALSE(base::PathExists(path));
}

TEST(ReserveSizeTest, IsAPercentOrWhatAServerNeeds) {
  const auto size = [](uint64_t disk, uint64_t configured) {
    base::FilesystemRoom room;
    room.size_bytes = disk;
    return ReserveSize(room, {configured}).value;
  };
  EXPECT_EQ(size(1000 * kGiB, kGiB), kGiB);
  EXPECT_EQ(size(50 * kGiB, kGiB), 50 * kGiB / 100);
  EXPECT_EQ(size(kGiB, kGiB), 64 * kMiB);
  EXPECT_EQ(size(100 * kMiB, kGiB), 25 * kMiB);
  EXPECT_EQ(size(1000 * kGiB, 0), 0u);
}

}  // namespace
}  // namespace metal::disk
