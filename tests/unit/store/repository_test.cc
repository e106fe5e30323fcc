#include "agent/store/repository.h"

#include <thread>
#include <vector>

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

TEST(RepositoryTest, OneOfManyCreatorsWins) {
  testing::TempDir dir;
  std::vector<std::thread> creators;
  std::vector<std::string> ids(8);
  for (std::string& id : ids) {
    creators.emplace_back([&dir, &id] {
      const auto repository = Repository::OpenOrCreate(dir.File("repo"));
      if (repository.ok()) id = repository->id();
    });
  }
  for (std::thread& creator : creators) creator.join();
  for (const std::string& id : ids) EXPECT_EQ(id, ids.front());
  EXPECT_EQ(ids.front().size(), 32u);
  EXPECT_THAT(base::ListDirectory(dir.File("repo")),
              testing::IsOkAndHolds(std::vector<std::string>{"metal-repository"}));
}

TEST(KnownRepositoryTest, OneThatIsNotMountedIsNotMadeAnew) {
  testing::TempDir dir;
  const std::string path = dir.File("repo"), state = dir.path();
  const auto first = Repository::OpenKnown(path, state);
  ASSERT_OK(first);
  EXPECT_THAT(base::ReadFile(dir.File("repository.id")), testing::IsOkAndHolds(first->id() + "\n"));
  ASSERT_OK(base::RemoveTree(path));
  for (const bool mount_point : {false, true}) {
    if (mount_point) {
      ASSERT_OK(base::MakeDirectories(path));
    }
    const auto refused = Repository::OpenKnown(path, state);
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable,
                                  AllOf(HasSubstr(first->id()), HasSubstr("HINT"))));
    EXPECT_EQ(base::GetReason(refused.status())->reason, "REPOSITORY");
    EXPECT_THAT(Repository::OpenNoted(path, state), StatusIs(absl::StatusCode::kUnavailable));
  }
  EXPECT_THAT(base::ListDirectory(path), testing::IsOkAndHolds(std::vector<std::string>()));
  ASSERT_OK(base::RemoveTree(dir.File("repository.id")));
  EXPECT_OK(Repository::OpenKnown(path, state));
}

TEST(KnownRepositoryTest, AnotherOneIsRefused) {
  testing::TempDir dir;
  ASSERT_OK(Repository::OpenKnown(dir.File("ours"), dir.path()));
  const auto other = Repository::OpenOrCreate(dir.File("other"));
  ASSERT_OK(other);
  EXPECT_THAT(Repository::OpenKnown(dir.File("other"), dir.path()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(other->id()), HasSubstr("HINT"))));
  EXPECT_OK(Repository::OpenKnown(dir.File("ours"), dir.path()));
}

TEST(KnownRepositoryTest, ADamagedNoteIsNotTakenForNone) {
  testing::TempDir dir;
  dir.Write("repository.id", "");
  EXPECT_THAT(Repository::OpenKnown(dir.File("repo"), dir.path()),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("repository.id")));
  EXPECT_FALSE(base::PathExists(dir.File("repo")));
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
