#include "agent/store/repository.h"

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::store {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

TEST(RepositoryTest, IsCreatedOnceAndKeepsItsId) {
  testing::TempDir dir;
  const auto first = Repository::OpenOrCreate(dir.File("repo"));
  ASSERT_OK(first);
  const auto second = Repository::OpenOrCreate(dir.File("repo"));
  ASSERT_OK(second);
  EXPECT_EQ(first->id(), second->id());
  EXPECT_EQ(first->id().size(), 32u);
}

TEST(RepositoryTest, AForeignDirectoryIsRefused) {
  testing::TempDir dir;
  dir.Write("repo/precious", "x");
  EXPECT_THAT(Repository::OpenOrCreate(dir.File("repo")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not empty")));
}

TEST(RepositoryTest, AnAbsentOneIsNotFound) {
  testing::TempDir dir;
  EXPECT_THAT(Repository::Open(dir.File("repo")), StatusIs(absl::StatusCode::kNotFound));
}

TEST(RepositoryTest, ANewerFormatIsNamed) {
  testing::TempDir dir;
  dir.Write("repo/metal-repository", "format\t2\nrepository-id\t" + std::string(32, 'a') + "\n");
  EXPECT_THAT(Repository::Open(dir.File("repo")),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("format 2")));
}

TEST(RepositoryTest, ADamagedMarkerIsNotReplaced) {
  testing::TempDir dir;
  dir.Write("repo/metal-repository", "garbage");
  EXPECT_THAT(Repository::OpenOrCreate(dir.File("repo")), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(RepositoryTest, OneWriterPerSystem) {
  testing::TempDir dir;
  const auto repository = Repository::OpenOrCreate(dir.File("repo"));
  ASSERT_OK(repository);
  {
    const auto lock = repository->LockForBackup(1);
    ASSERT_OK(lock);
    EXPECT_THAT(repository->LockForBackup(1), StatusIs(absl::StatusCode::kAborted));
    EXPECT_OK(repository->LockForBackup(2));
  }
  EXPECT_OK(repository->LockForBackup(1));
  const auto systems = repository->ListSystems();
  ASSERT_OK(systems);
  EXPECT_EQ(*systems, (std::vector<uint64_t>{1, 2}));
}

TEST(LabelTest, OnlyPlainNames) {
  for (const char* good : {"20261122T021500Z-F", "a", "A.b_c-d"})
    EXPECT_TRUE(IsValidLabel(good)) << good;
  for (const char* bad : {"", ".", "..", "-x", "a/b", "a b", "\xc3\xa9"})
    EXPECT_FALSE(IsValidLabel(bad)) << bad;
  EXPECT_FALSE(IsValidLabel(std::string(65, 'a')));
}

}  // namespace
}  // namespace metal::store
