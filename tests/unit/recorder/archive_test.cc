#include "agent/recorder/archive.h"

#include <string>

#include "agent/base/subprocess.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/recorder/capture_fixture.h"

namespace metal::recorder {
namespace {

TEST(ArchiveTest, TarReadsWhatWasWritten) {
  const testing::TempDir dir;
  std::string bytes;
  const std::string large(3 << 20, 'y');
  {
    ArchiveWriter archive("top", absl::FromUnixSeconds(1'800'000'000), [&](std::string_view piece) {
      bytes += piece;
      return absl::OkStatus();
    });
    ASSERT_OK(archive.AddFile("empty", ""));
    ASSERT_OK(archive.AddFile("a/block", std::string(512, 'x')));
    ASSERT_OK(archive.AddFile("large", large));
    ASSERT_OK(archive.Finish());
  }
  const auto files = FilesOf(bytes);
  EXPECT_EQ(files.size(), 3u);
  EXPECT_EQ(files.at("large"), large);
  const std::string path = dir.Write("x.tar.zst", bytes);
  base::SubprocessOptions tar;
  tar.argv = {"tar", "--zstd", "-tvf", path};
  const auto listed = base::RunSubprocess(tar);
  ASSERT_OK(listed);
  if (listed->LastLine().find("zstd") != std::string::npos) GTEST_SKIP() << "tar has no zstd here";
  ASSERT_TRUE(listed->ok()) << listed->LastLine();
  EXPECT_THAT(listed->standard_output, ::testing::HasSubstr("-rw-r--r-- 0/0"));
  EXPECT_THAT(listed->standard_output, ::testing::HasSubstr("3145728 2027-01-15 08:00 top/large"));
}

TEST(ArchiveTest, ANameThatIsTooLongIsRefused) {
  ArchiveWriter archive("top", absl::Now(), [](std::string_view) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::IsInvalidArgument(archive.AddFile(std::string(100, 'n'), "")));
}

}  // namespace
}  // namespace metal::recorder
