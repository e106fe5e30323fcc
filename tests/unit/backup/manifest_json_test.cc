#include "agent/backup/manifest_json.h"

#include "agent/base/file.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::backup {
namespace {

std::string Write(int major_version) {
  testing::TempDir dir;
  BackupManifestWriter::Options options;
  options.path = dir.File("backup_manifest");
  options.major_version = major_version;
  options.system_identifier = 7300000000000000001;
  options.timeline = 2;
  options.start_lsn = base::Lsn{0x1600000028};
  options.stop_lsn = base::Lsn{0x1600000100};
  auto writer = BackupManifestWriter::Create(options);
  EXPECT_OK(writer);
  EXPECT_OK((*writer)->AddFile({"base/1/\"quoted\\\"", 8192, 951782399, 0600, 0x12345678}));
  EXPECT_OK((*writer)->AddFile({"caf\xc3\xa9", 0, 0, 0600, 0}));
  EXPECT_OK((*writer)->Finish());
  EXPECT_FALSE(base::PathExists(options.path + ".tmp"));
  return *base::ReadFile(options.path);
}

TEST(BackupManifestTest, LooksAsPostgresqlWritesIt) {
  const std::string text = Write(15);
  const size_t last = text.rfind("\"Manifest-Checksum\"");
  EXPECT_EQ(text.substr(0, last),
            "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n"
            "\"Files\": [\n"
            "{ \"Path\": \"base/1/\\\"quoted\\\\\\\"\", \"Size\": 8192, \"Last-Modified\": "
            "\"2000-02-28 23:59:59 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": "
            "\"78563412\" },\n"
            "{ \"Encoded-Path\": \"636166c3a9\", \"Size\": 0, \"Last-Modified\": "
            "\"1970-01-01 00:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": "
            "\"00000000\" }\n"
            "],\n"
            "\"WAL-Ranges\": [\n"
            "{ \"Timeline\": 2, \"Start-LSN\": \"16/28\", \"End-LSN\": \"16/100\" }\n"
            "],\n");
  EXPECT_EQ(text.substr(last),
            "\"Manifest-Checksum\": \"" + Sha256Of(text.substr(0, last)) + "\"}\n");
}

TEST(BackupManifestTest, Version2NamesTheSystem) {
  EXPECT_EQ(Write(17).substr(0, 97),
            "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": "
            "7300000000000000001,\n\"Files\": [\n{");
}

}  // namespace
}  // namespace metal::backup
