// What the catalogue makes of manifests that are damaged, or that it cannot look at.
#include "agent/backup/catalog.h"

#include <unistd.h>

#include <cstdio>

#include "tests/unit/backup/backup_fixture.h"

namespace metal::backup {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

class CatalogTest : public BackupTest {
 protected:
  // Two backups, an hour apart.
  void SetUp() override {
    ASSERT_OK(base::MakeDirectories(dir_.File("data/pg_wal")));
    Put("PG_VERSION", "15\n");
    Put("global/pg_control", TestControlFile());
    Put("base/1/16384", TestPages(2, 0, 1));
    ASSERT_OK_AND_ASSIGN(older_, Backup());
    clock_.Advance(absl::Hours(1));
    ASSERT_OK_AND_ASSIGN(newer_, Backup());
  }
  std::string InSystem(const std::string& path) {
    return fmt::format("{}/{}/{}", config_.repository_path, kTestSystem, path);
  }
  void Damage(const std::string& label) {
    ASSERT_OK(base::WriteFileDurably(InSystem("backups/" + label + "/manifest"), "damaged"));
  }

  BackupInfo older_, newer_;
};

TEST_F(CatalogTest, ADamagedBackupIsShown) {
  Damage(older_.label);
  ASSERT_OK_AND_ASSIGN(const auto all, TheCatalog().List(kTestSystem));
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].label, newer_.label);
  EXPECT_EQ(all[1].label, older_.label);
  EXPECT_EQ(all[1].state, BackupState::kDamaged);
  EXPECT_THAT(all[1].damage, HasSubstr("manifest"));
  EXPECT_EQ(all[1].header.start_time,
            absl::FromUnixSeconds(absl::ToUnixSeconds(older_.header.start_time)));
}

TEST_F(CatalogTest, LatestIsNeverAnOlderOneInPlaceOfADamagedOne) {
  Damage(newer_.label);
  EXPECT_THAT(
      TheCatalog().Get(kTestSystem, "latest"),
      StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(newer_.label), HasSubstr("HINT"))));
  EXPECT_THAT(Verify("latest"), StatusIs(absl::StatusCode::kDataLoss, HasSubstr(newer_.label)));
  EXPECT_THAT(Restore(dir_.File("restored")),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(newer_.label)));
  EXPECT_OK(TheCatalog().Get(kTestSystem, older_.label));
}

TEST_F(CatalogTest, ADamagedOneOfTheSameSecondMayBeTheLatest) {
  clock_.Advance(absl::Milliseconds(600));
  ASSERT_OK(Backup());
  clock_.Advance(absl::Milliseconds(200));
  ASSERT_OK_AND_ASSIGN(const BackupInfo last, Backup());
  Damage(last.label);
  EXPECT_THAT(TheCatalog().Get(kTestSystem, "latest"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr(last.label)));
}

TEST_F(CatalogTest, ADamagedOneThatIsOlderDoesNotHideTheLatest) {
  Damage(older_.label);
  ASSERT_OK_AND_ASSIGN(const BackupInfo latest, TheCatalog().Get(kTestSystem, "latest"));
  EXPECT_EQ(latest.label, newer_.label);
  // A label of its own does not say when it began: it may be the latest.
  ASSERT_EQ(
      std::rename(InSystem("backups/" + older_.label).c_str(), InSystem("backups/mine").c_str()),
      0);
  EXPECT_THAT(TheCatalog().Get(kTestSystem, "latest"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("mine")));
}

TEST_F(CatalogTest, AManifestThatCannotBeLookedForIsNotAbsent) {
  // Every path below a link to itself fails with ELOOP, as a disk that cannot be read fails with
  // EIO.
  const std::string directory = InSystem("backups/" + older_.label);
  ASSERT_EQ(std::rename(directory.c_str(), dir_.File("aside").c_str()), 0);
  ASSERT_EQ(symlink(older_.label.c_str(), directory.c_str()), 0);
  ASSERT_OK(TheCatalog().RemoveGarbage(kTestSystem));
  EXPECT_THAT(TheCatalog().Get(kTestSystem, older_.label),
              StatusIs(absl::ErrnoToStatusCode(ELOOP)));
  ASSERT_OK(base::RemoveTree(directory));
  ASSERT_EQ(std::rename(dir_.File("aside").c_str(), directory.c_str()), 0);
  EXPECT_OK(Verify(older_.label));
}

}  // namespace
}  // namespace metal::backup
