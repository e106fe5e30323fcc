#include "agent/disk/disk_record.h"

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::disk {
namespace {

using metal::testing::IsOk;
using metal::testing::StatusIs;
using ::testing::HasSubstr;

DiskRecord SomeRecord() {
  DiskRecord record;
  record.drives["data"] = {"/var/lib/postgres",
                           {{.model = "Drive, with\ttab",
                             .serial = "S1",
                             .wwid = "eui.0025",
                             .firmware = "1.0",
                             .size_bytes = uint64_t{3} << 40},
                            {.model = "", .serial = "S2", .firmware = "", .size_bytes = 0}}};
  record.acknowledged.push_back({.fault_class = "media_error",
                                 .subject = "nvme0n1",
                                 .device = "nvme0n1",
                                 .serial = "S1",
                                 .confirmed = true,
                                 .witnesses = {"kernel_log", "probe"},
                                 .caller = "unix",
                                 .reason = "line one\nline \"two\"",
                                 .time = absl::FromUnixSeconds(1700000000)});
  Acknowledgement& empty = record.acknowledged.emplace_back();
  empty.fault_class = "slow";
  empty.time = absl::UnixEpoch();
  return record;
}

TEST(DiskRecordTest, WhatIsEncodedIsDecoded) {
  ASSERT_OK_AND_ASSIGN(const DiskRecord read, DecodeRecord(EncodeRecord(SomeRecord())));
  EXPECT_EQ(read, SomeRecord());
  ASSERT_OK_AND_ASSIGN(const DiskRecord empty, DecodeRecord(""));
  EXPECT_EQ(empty, DiskRecord());
}

TEST(DiskRecordTest, ALineThatMakesNoSenseIsNamed) {
  const std::string good = EncodeRecord(SomeRecord());
  for (const char* bad : {"drive\tdata\n", "stranger\n", "drive\ta\tb\tc\td\te\tf\tmany\n", "\n",
                          "acknowledged\t1\t2\t3\t4\t5\t6\t7\t8\tx\n", "drive\\q\n"}) {
    EXPECT_THAT(DecodeRecord(good + bad),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("line 5 makes no sense")))
        << bad;
  }
}

TEST(RecordFileTest, WhatWasSavedIsLoadedAndAnOlderVersionIsNotWrittenOverIt) {
  metal::testing::TempDir dir;
  RecordFile file(dir.File("disks"));
  ASSERT_OK_AND_ASSIGN(const DiskRecord none, file.Load(absl::Seconds(10)));
  EXPECT_EQ(none, DiskRecord());
  ASSERT_THAT(file.Save(SomeRecord(), 2, absl::Seconds(10)), IsOk());
  ASSERT_THAT(file.Save(DiskRecord(), 1, absl::Seconds(10)), IsOk());
  ASSERT_OK_AND_ASSIGN(const DiskRecord read, file.Load(absl::Seconds(10)));
  EXPECT_EQ(read, SomeRecord());
  RecordFile nowhere("");
  EXPECT_THAT(nowhere.Save(SomeRecord(), 1, absl::Seconds(10)), IsOk());
  RecordFile missing(dir.File("no/such/directory/disks"));
  EXPECT_FALSE(missing.Save(SomeRecord(), 1, absl::Seconds(10)).ok());
}

}  // namespace
}  // namespace metal::disk
