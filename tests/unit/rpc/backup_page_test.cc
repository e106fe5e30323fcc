#include "agent/rpc/backup_page.h"

#include <vector>

#include "tests/harness/status_matchers.h"

namespace metal::rpc {
namespace {

using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

backup::BackupInfo Backup(uint64_t system, const std::string& label) {
  backup::BackupInfo info;
  info.label = label;
  info.header.system_identifier = system;
  return info;
}

// The labels of all pages, by following their tokens.
std::vector<std::string> Follow(const std::vector<backup::BackupInfo>& all, int size) {
  std::vector<std::string> labels;
  std::string token;
  do {
    const auto page = PageOfBackups(all, size, token);
    if (!page.ok()) return {std::string(page.status().message())};
    EXPECT_LE(page->backups.size(), static_cast<size_t>(size));
    for (const auto& each : page->backups) labels.push_back(each.label);
    token = page->next_token;
  } while (!token.empty() && labels.size() < 100);
  return labels;
}

TEST(BackupPageTest, EveryBackupIsOnOnePageWhateverTheirOrder) {
  // One that began early and ended late, two systems with one label, a damaged one in front.
  const std::vector<backup::BackupInfo> all = {Backup(1, "odd"), Backup(1, "20261126T1000"),
                                               Backup(2, "20261126T1100"),
                                               Backup(1, "20261126T1100"), Backup(2, "2025")};
  for (int size = 1; size <= 6; ++size) {
    EXPECT_THAT(Follow(all, size),
                ElementsAre("odd", "20261126T1000", "20261126T1100", "20261126T1100", "2025"))
        << size;
  }
  EXPECT_THAT(Follow({}, 1), ElementsAre());
}

TEST(BackupPageTest, AFullPageThatIsTheLastHasNoToken) {
  const std::vector<backup::BackupInfo> all = {Backup(1, "b"), Backup(1, "a")};
  ASSERT_OK_AND_ASSIGN(const BackupPage page, PageOfBackups(all, 2, ""));
  EXPECT_EQ(page.backups.size(), 2u);
  EXPECT_EQ(page.next_token, "");
  const std::vector<backup::BackupInfo> many(101, Backup(1, "b"));
  ASSERT_OK_AND_ASSIGN(const BackupPage first, PageOfBackups(many, 0, ""));
  EXPECT_EQ(first.backups.size(), 100u);
  EXPECT_EQ(first.next_token, "1/b");
}

TEST(BackupPageTest, WhatCannotBeServedIsRefused) {
  const std::vector<backup::BackupInfo> all = {Backup(1, "b"), Backup(1, "a")};
  for (const int size : {-1, 1001}) {
    EXPECT_THAT(PageOfBackups(all, size, ""),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("page_size")));
  }
  for (const char* token : {"1/c", "2/a", "a", "/", "1/"}) {
    EXPECT_THAT(PageOfBackups(all, 1, token),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("HINT")));
  }
}

}  // namespace
}  // namespace metal::rpc
