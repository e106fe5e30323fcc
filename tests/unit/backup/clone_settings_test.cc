#include "agent/backup/clone_settings.h"

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::backup {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CloneSettingsTest : public ::testing::Test {
 protected:
  std::string Forgotten() {
    EXPECT_OK(ForgetSourcesRole(dir_.path()));
    EXPECT_TRUE(base::PathExists(dir_.File("standby.signal")));
    EXPECT_FALSE(base::PathExists(dir_.File("recovery.signal")));
    return base::ReadFile(dir_.File("postgresql.auto.conf")).value_or("none");
  }

  testing::TempDir dir_;
};

TEST_F(CloneSettingsTest, WhatIncludedFilesSetDoesNotStopTheStandby) {
  dir_.Write("recovery.signal", "");
  dir_.Write("postgresql.conf", "include 'old.conf'\n");
  dir_.Write("old.conf", "recovery_target_time = '2001-01-01'\nrecovery_min_apply_delay = 1h\n");
  dir_.Write("postgresql.auto.conf", "work_mem = '8MB'\nrecovery_target_xid = '7'\n");
  const std::string conf = Forgotten();
  EXPECT_THAT(conf, HasSubstr("\nrecovery_target_time = ''\n"));
  EXPECT_THAT(conf, HasSubstr("work_mem = '8MB'"));
  EXPECT_THAT(conf, Not(HasSubstr("xid")));
  EXPECT_THAT(conf, Not(HasSubstr("delay"))) << "of a standby it is wanted";
}

TEST_F(CloneSettingsTest, WhatSteersNothingIsLeftAsItIs) {
  dir_.Write("postgresql.conf", "work_mem = '8MB'\n");
  EXPECT_EQ(Forgotten(), "none");
  dir_.Write("postgresql.auto.conf", "# mine\nwork_mem = 8MB\n");
  EXPECT_EQ(Forgotten(), "# mine\nwork_mem = 8MB\n");
}

}  // namespace
}  // namespace metal::backup
