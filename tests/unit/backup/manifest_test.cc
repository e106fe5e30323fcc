#include "agent/backup/manifest.h"

#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::backup {
namespace {

using testing::StatusIs;

BackupHeader Example() {
  BackupHeader h;
  h.label = "20261122T021500Z-F";
  h.system_identifier = 7300000000000000001;
  h.postgres_version = 150018;
  h.control_version = 1300;
  h.catalog_version = 202209061;
  h.timeline = 3;
  h.start_lsn = {0x1600000028};
  h.stop_lsn = {0x1600000100};
  h.start_time = absl::FromUnixMicros(1795313700123456);
  h.stop_time = absl::FromUnixMicros(1795313705000001);
  h.copy_time = absl::Microseconds(4512345);
  h.codec = "zstd";
  h.level = -3;
  h.io_engine = "io_uring";
  h.checksums = ChecksumVerdict::kSuspect;
  h.corrupt_page_count = 2;
  h.corrupt_pages = {{"base/1/16384", 77, "unchanged on re-read"},
                     {"base/1/\t%\xff", 4294967295, ""}};
  h.pages_in_window = 5;
  h.files = 1200;
  h.directories = 30;
  h.frames = 3700;
  h.bytes = 3650000000;
  h.stored_bytes = 900000000;
  h.data_directory = "/var/lib/postgresql/15/main";
  h.tablespaces = {{16400, "/mnt/fast disk"}};
  h.annotations = {{"why", "before the\nupgrade"}};
  h.backup_label = "START WAL LOCATION: 16/28\nLABEL: x\ty\n";
  h.packs = {{"20261122T021500Z-F/1.pack", 900000000}, {"20261121T021500Z-F/4.pack", 17}};
  h.file_list_bytes = 123456;
  h.file_list_sha256 = std::string(64, 'a');
  return h;
}

TEST(ManifestTest, SurvivesTheRoundTrip) {
  const auto parsed = ParseManifest(FormatManifest(Example()));
  ASSERT_OK(parsed);
  EXPECT_EQ(*parsed, Example());
}

TEST(ManifestTest, NoCreatedTablespacesAreNotTheSameAsUnknownOnes) {
  BackupHeader h = Example();
  for (const auto& created : std::vector<std::optional<std::map<uint32_t, std::string>>>{
           std::nullopt, std::map<uint32_t, std::string>{},
           std::map<uint32_t, std::string>{{16500, "/mnt/a\nb c\\"}, {16501, "/x"}}}) {
    h.created_tablespaces = created;
    const auto parsed = ParseManifest(FormatManifest(h));
    ASSERT_OK(parsed);
    EXPECT_EQ(parsed->created_tablespaces, created);
  }
}

TEST(ManifestTest, EveryTruncationIsRejected) {
  const std::string text = FormatManifest(Example());
  for (size_t length = 0; length < text.size(); ++length) {
    ASSERT_FALSE(ParseManifest(text.substr(0, length)).ok()) << "cut at " << length;
  }
}

TEST(ManifestTest, EveryBitFlipIsRejected) {
  const std::string text = FormatManifest(Example());
  for (size_t at = 0; at < text.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = text;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      ASSERT_FALSE(ParseManifest(damaged).ok()) << "byte " << at << " bit " << bit;
    }
  }
}

TEST(ManifestTest, NewerFormatIsNamedAsSuch) {
  std::string text = FormatManifest(Example());
  text.replace(text.find("\t1\n"), 3, "\t2\n");
  EXPECT_THAT(ParseManifest(text),
              StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("upgrade")));
}

TEST(ManifestTest, TrailingBytesAreRejected) {
  EXPECT_THAT(ParseManifest(FormatManifest(Example()) + "x"),
              StatusIs(absl::StatusCode::kDataLoss));
}

TEST(ManifestTest, PackPathsCannotLeaveTheRepository) {
  BackupHeader h = Example();
  h.packs[0].path = "../../etc/passwd";
  EXPECT_THAT(ParseManifest(FormatManifest(h)),
              StatusIs(absl::StatusCode::kDataLoss, ::testing::HasSubstr("pack")));
}

}  // namespace
}  // namespace metal::backup
