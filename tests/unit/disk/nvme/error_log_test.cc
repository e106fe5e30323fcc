#include "agent/disk/nvme/error_log.h"

#include "tests/harness/status_matchers.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::disk {
namespace {

using metal::testing::LoadPage;
using metal::testing::StatusIs;

TEST(ErrorLogTest, EveryFieldIsReadFromItsPlaceAndEmptySlotsAreLeftOut) {
  const auto entries = DecodeErrorLog(LoadPage("error"));
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 3u);
  const ErrorEntry& media = (*entries)[0];
  EXPECT_EQ(media.number, 4'294'967'296u);
  EXPECT_EQ(media.queue, 3);
  EXPECT_EQ(media.command, 0x1d2);
  EXPECT_EQ(media.status.type, 2);
  EXPECT_EQ(media.status.code, 0x81);
  EXPECT_FALSE(media.may_succeed_later);
  EXPECT_EQ(media.lba, 123'456'789u);
  EXPECT_EQ(media.name_space, 1u);
  EXPECT_EQ(media.command_specific, 42u);
  EXPECT_EQ(media.kind(), StatusKind::kUnreadable);
  EXPECT_FALSE(media.is_noise());
  EXPECT_TRUE((*entries)[2].may_succeed_later);
  EXPECT_EQ((*entries)[2].kind(), StatusKind::kInternal);
}

TEST(ErrorLogTest, WhatHealthToolsLeaveIsNoise) {
  const auto entries = DecodeErrorLog(LoadPage("error"));
  ASSERT_TRUE(entries.ok());
  const ErrorEntry& refused = (*entries)[1];
  EXPECT_EQ(refused.status.type, 1);
  EXPECT_EQ(refused.status.code, 0x09);
  EXPECT_TRUE(refused.is_noise());
  ErrorEntry of_a_program = refused;
  of_a_program.queue = 1;
  EXPECT_FALSE(of_a_program.is_noise());
}

TEST(ErrorLogTest, OnlyWholeEntriesOfOneTransferAreTaken) {
  for (const size_t size : {0u, 63u, 65u, 4160u}) {
    EXPECT_THAT(DecodeErrorLog(std::vector<std::byte>(size)),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  const auto none = DecodeErrorLog(std::vector<std::byte>(4096));
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

TEST(NvmeStatusTest, AStatusHasAKindAndAText) {
  struct Row {
    NvmeStatus status;
    StatusKind kind;
    const char* text;
  };
  for (const Row& row :
       {Row{{0, 0x00}, StatusKind::kSuccess, "success (status 0/00h)"},
        Row{{2, 0x80}, StatusKind::kUnwritten, "write fault (status 2/80h)"},
        Row{{2, 0x82}, StatusKind::kCorrupt, "end-to-end guard check error (status 2/82h)"},
        Row{{0, 0x20}, StatusKind::kReadOnly, "namespace is write protected (status 0/20h)"},
        Row{{3, 0x71}, StatusKind::kAborted, "aborted by the host (status 3/71h)"},
        Row{{7, 0xff}, StatusKind::kOther, "status 7/ffh"}}) {
    EXPECT_EQ(KindOfStatus(row.status), row.kind) << row.text;
    EXPECT_EQ(StatusText(row.status), row.text);
  }
}

TEST(NvmeStatusTest, ThePhaseBitAndTheFlagsAreNoPartOfTheStatus) {
  for (const uint16_t flags : {0x0000, 0x0001, 0xf001}) {
    const NvmeStatus status = StatusOfField(static_cast<uint16_t>(0x0502 | flags));
    EXPECT_EQ(status.type, 2);
    EXPECT_EQ(status.code, 0x81);
  }
}

}  // namespace
}  // namespace metal::disk
