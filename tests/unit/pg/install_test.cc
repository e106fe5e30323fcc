#include "agent/pg/install.h"

#include <sys/stat.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

void WriteProgram(const testing::TempDir& dir, const std::string& name, const std::string& output) {
  const std::string path =
      dir.Write(name, "#!/bin/sh\necho run >> " + dir.File("runs") + "\necho '" + output + "'\n");
  ASSERT_EQ(chmod(path.c_str(), 0755), 0);
}

TEST(PostgresVersionTest, VersionsOfServersAreRead) {
  const std::tuple<const char*, int, const char*> rows[] = {
      {"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 150018, "15.18"},
      {"postgres (PostgreSQL) 13.16\n", 130016, "13.16"},
      {"postgres (PostgreSQL) 19beta1\n", 190000, "19beta1"},
      {"postgres (PostgreSQL) 18devel", 180000, "18devel"}};
  for (const auto& [output, number, text] : rows) {
    ASSERT_OK_AND_ASSIGN(const PostgresVersion version, ParsePostgresVersion(output));
    EXPECT_EQ(version.number, number);
    EXPECT_EQ(version.text, text);
  }
}

TEST(PostgresVersionTest, OtherOutputIsRejected) {
  for (const char* output : {"", "psql (PostgreSQL) 15.1", "postgres (PostgreSQL) ",
                             "postgres (PostgreSQL) 9.6.24", "postgres (PostgreSQL) 15.x"}) {
    EXPECT_THAT(ParsePostgresVersion(output), StatusIs(absl::StatusCode::kInvalidArgument))
        << output;
  }
}

TEST(InstallTest, AMissingProgramIsNamedWithAHint) {
  testing::TempDir dir;
  Install install(dir.path());
  const auto missing = install.Program("postgres");
  EXPECT_THAT(missing,
              StatusIs(absl::StatusCode::kNotFound,
                       ::testing::AllOf(HasSubstr(dir.File("postgres")), HasSubstr("HINT"))));
  EXPECT_EQ(base::GetReason(missing.status())->reason, "BINARIES_MISSING");
  dir.Write("postgres", "not executable");
  EXPECT_THAT(install.Program("postgres"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("not an executable")));
}

TEST(InstallTest, TheVersionIsAskedOnceForEachProgramFile) {
  testing::TempDir dir;
  WriteProgram(dir, "postgres", "postgres (PostgreSQL) 15.18");
  Install install(dir.path());
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(const PostgresVersion version, install.Version());
    EXPECT_EQ(version.number, 150018);
  }
  EXPECT_EQ(*base::ReadFile(dir.File("runs")), "run\n");
  ASSERT_EQ(rename(dir.File("postgres").c_str(), dir.File("old").c_str()), 0);
  WriteProgram(dir, "postgres", "postgres (PostgreSQL) 15.19");
  ASSERT_OK_AND_ASSIGN(const PostgresVersion upgraded, install.Version());
  EXPECT_EQ(upgraded.number, 150019);
}

TEST(InstallTest, VersionsOutsideTheSupportedRangeAreRefused) {
  testing::TempDir dir;
  WriteProgram(dir, "postgres", "postgres (PostgreSQL) 12.22");
  Install install(dir.path());
  EXPECT_THAT(install.Version(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("13 to 18")));
}

}  // namespace
}  // namespace metal::pg
