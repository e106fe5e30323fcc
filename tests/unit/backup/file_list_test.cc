#include "agent/backup/file_list.h"

#include <vector>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::backup {
namespace {

using testing::IsOk;
using testing::StatusIs;

class FileListTest : public ::testing::Test {
 protected:
  // 3 directories, a tablespace, `count` files with an extent each, one file with two extents.
  void Write(int count) {
    auto writer = FileListWriter::Create(path_);
    ASSERT_OK(writer);
    ASSERT_OK((*writer)->AddDirectory("base", 0700));
    ASSERT_OK((*writer)->AddDirectory("base/odd\t%\n\xff name", 0750));
    ASSERT_OK((*writer)->AddDirectory("pg_tblspc", 0700));
    ASSERT_OK((*writer)->AddTablespace(16400, "/mnt/fast disk"));
    for (int i = 0; i < count; ++i) {
      const FileEntry file{fmt::format("base/{}", i), 8192, 1795313700, 0600, 0xdeadbeef};
      const Extent extent{0, 8192, 0, 4096 + 100ull * i, 64, 1 << 20, 8192};
      ASSERT_OK((*writer)->AddFile(file, std::span(&extent, 1)));
    }
    const Extent two[] = {{0, 1 << 20, 0, 4096, 100, 1 << 20, 0},
                          {1 << 20, 10, 1, 4096, 50, 10, 0}};
    ASSERT_OK((*writer)->AddFile({"large", (1 << 20) + 10, 1, 0640, 1}, two));
    ASSERT_OK((*writer)->AddFile({"empty", 0, 1, 0600, 0}, {}));
    auto totals = (*writer)->Finish();
    ASSERT_OK(totals);
    totals_ = *totals;
    compressed_ = *base::ReadFile(path_);
  }

  absl::Status ReadAll(const std::string& bytes, std::vector<FileListRecord>* records = nullptr) {
    size_t at = 0;
    FileListReader reader(
        [&](std::span<char> out) -> absl::StatusOr<size_t> {
          const size_t n = std::min({out.size(), bytes.size() - at, size_t{1000}});
          std::copy_n(bytes.data() + at, n, out.data());
          at += n;
          return n;
        },
        {totals_.raw_bytes, totals_.sha256, 2});
    FileListRecord record;
    do {
      const absl::Status status = reader.Next(record);
      if (!status.ok()) return status;
      if (records != nullptr) records->push_back(record);
    } while (record.kind != RecordKind::kEnd);
    return absl::OkStatus();
  }

  testing::TempDir dir_;
  const std::string path_ = dir_.File("files.zst");
  FileListTotals totals_;
  std::string compressed_;
};

TEST_F(FileListTest, SurvivesTheRoundTrip) {
  Write(3);
  std::vector<FileListRecord> records;
  ASSERT_THAT(ReadAll(compressed_, &records), IsOk());
  ASSERT_EQ(records.size(), 4u + 3 * 2 + 3 + 1 + 1);
  EXPECT_EQ(records[1].file.path, "base/odd\t%\n\xff name");
  EXPECT_EQ(records[1].file.mode, 0750u);
  EXPECT_EQ(records[3].location, "/mnt/fast disk");
  EXPECT_EQ(records[4].file, (FileEntry{"base/0", 8192, 1795313700, 0600, 0xdeadbeef}));
  EXPECT_EQ(records[7].extent, (Extent{0, 8192, 0, 4196, 64, 1 << 20, 8192}));
  EXPECT_EQ(records.back().files, 5u);
  EXPECT_EQ(records.back().bytes, 3 * 8192u + (1 << 20) + 10);
}

TEST_F(FileListTest, ManyFilesAreStreamed) {
  Write(100000);
  std::vector<FileListRecord> records;
  ASSERT_THAT(ReadAll(compressed_, &records), IsOk());
  EXPECT_EQ(records.back().files, 100002u);
  EXPECT_LT(compressed_.size(), 2u << 20);
}

TEST_F(FileListTest, TruncatedTailIsRejected) {
  Write(50);
  for (size_t length = 0; length < compressed_.size(); ++length) {
    ASSERT_FALSE(ReadAll(compressed_.substr(0, length)).ok()) << "cut at " << length;
  }
}

TEST_F(FileListTest, EveryBitFlipIsRejectedOrHarmless) {
  Write(20);
  std::vector<FileListRecord> good;
  ASSERT_THAT(ReadAll(compressed_, &good), IsOk());
  for (size_t at = 0; at < compressed_.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = compressed_;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      std::vector<FileListRecord> records;
      if (!ReadAll(damaged, &records).ok()) continue;
      // zstd has header bits without meaning; the contents must then be the same.
      ASSERT_EQ(records.size(), good.size()) << "byte " << at << " bit " << bit;
      for (size_t i = 0; i < good.size(); ++i) ASSERT_EQ(records[i].file, good[i].file);
    }
  }
}

TEST_F(FileListTest, AnotherListThanTheManifestNamesIsRejected) {
  Write(3);
  totals_.sha256[0] = totals_.sha256[0] == 'a' ? 'b' : 'a';
  EXPECT_THAT(ReadAll(compressed_),
              StatusIs(absl::StatusCode::kDataLoss, ::testing::HasSubstr("hash")));
}

TEST_F(FileListTest, TrailingBytesAreRejected) {
  Write(3);
  EXPECT_FALSE(ReadAll(compressed_ + compressed_).ok());
}

class FileListLineTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FileListLineTest, IsRejected) {
  FileListRecord record;
  EXPECT_THAT(ParseRecord(GetParam(), record), StatusIs(absl::StatusCode::kDataLoss));
}

INSTANTIATE_TEST_SUITE_P(
    BadLines, FileListLineTest,
    ::testing::Values("", "Z", "D\tbase", "D\t/abs\t0700", "D\ta/../b\t0700", "D\ta//b\t0700",
                      "D\ta\t99999", "D\ta%0\t0700", "D\ta%zz\t0700", "F\ta\t-1\t0\t0600\t00000000",
                      "F\ta\t1\t0\t0600\t0", "F\t.\t1\t0\t0600\t00000000", "L\t16400\trelative",
                      "L\tx\t/mnt",
                      "X\t0\t0\t0\t4096\t64\t10\t0",        // no bytes
                      "X\t0\t11\t0\t4096\t64\t10\t0",       // longer than its frame
                      "X\t0\t4\t0\t4096\t64\t10\t8",        // passes its frame's end
                      "X\t0\t10\t0\t4095\t64\t10\t0",       // inside the pack's header
                      "X\t0\t10\t0\t4096\t32\t10\t0",       // no payload
                      "X\t0\t10\t0\t4096\t9999999\t10\t0",  // payload too long
                      "X\t0\t2000000\t0\t4096\t64\t2000000\t0", "E\t1\t2\t3", "E\t1\t2\t3\t4\t5"));

}  // namespace
}  // namespace metal::backup
