#include "agent/pg/settings_files.h"

#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class SettingFilesTest : public ::testing::Test {
 protected:
  testing::TempDir dir_;
  SettingMap settings_;
};

TEST_F(SettingFilesTest, IncludesAreReadWhereTheyStand) {
  const std::string absolute = dir_.Write("elsewhere/absolute", "d = absolute\n");
  dir_.Write("conf.d/10-b.conf", "b = dir\ninclude 'deeper/more'\n");
  dir_.Write("conf.d/deeper/more", "c = more\n");
  dir_.Write("conf.d/20-b.conf", "b = later\n");
  dir_.Write("conf.d/.hidden.conf", "b = hidden\n");
  dir_.Write("conf.d/backup.conf~", "b = other name\n");
  dir_.Write("conf.d/directory.conf/x", "");
  const std::string conf = dir_.Write(
      "main", "a = 1\nb = 1\nINCLUDE_DIR conf.d\ninclude_if_exists = 'absent'\nA = 2\ninclude '" +
                  absolute + "'\n");
  ASSERT_OK(ReadSettingFiles(conf, settings_));
  EXPECT_THAT(settings_, ElementsAre(Pair("a", "2"), Pair("b", "later"), Pair("c", "more"),
                                     Pair("d", "absolute")));
}

TEST_F(SettingFilesTest, WhatPostgresRefusesIsAnErrorAndKeepsWhatCameBefore) {
  const std::string gone = dir_.Write("gone", "a = 1\ninclude 'absent'\nb = 1\n");
  EXPECT_THAT(ReadSettingFiles(gone, settings_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("absent")));
  EXPECT_THAT(settings_, ElementsAre(Pair("a", "1")));
  dir_.Write("present", "include 'absent'\n");
  const std::string inner = dir_.Write("inner", "include_if_exists 'present'\n");
  EXPECT_THAT(ReadSettingFiles(inner, settings_), StatusIs(absl::StatusCode::kNotFound));
  const std::string broken = dir_.Write("broken", "ok = 1\nno value =\n");
  EXPECT_THAT(ReadSettingFiles(broken, settings_),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 2")));
  const std::string endless = dir_.Write("endless", "include 'endless'\n");
  EXPECT_THAT(ReadSettingFiles(endless, settings_),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace metal::pg
