#include "agent/backup/clone_protocol.h"

#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"

namespace metal::backup {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

ClonePiece Piece() {
  return {.path = "base/5/16384.1",
          .size = 3 << 20,
          .mtime = 1795313700,
          .mode = 0640,
          .file_offset = 1 << 20,
          .frame_offset = 0,
          .length = 1 << 20,
          .crc32c = 0xdeadbeef,
          .whole = false,
          .checked = true,
          .first_block = 131200,
          .unsettled = {131201, 131207}};
}

TEST(CloneProtocolTest, MessagesSurviveTheWire) {
  CloneWelcome welcome{"node-b",
                       "boot",
                       64768,
                       42,
                       "/srv/data",
                       7300000000000000001,
                       15,
                       202209061,
                       true,
                       {{16400, "/mnt/a"}},
                       {{0, 1000}, {16400, 7}}};
  ASSERT_OK_AND_ASSIGN(const CloneWelcome heard, DecodeCloneWelcome(Encode(welcome)));
  EXPECT_EQ(Encode(heard), Encode(welcome));
  EXPECT_EQ(heard.tablespaces, welcome.tablespaces);
  EXPECT_EQ(heard.bytes, welcome.bytes);
  EXPECT_TRUE(heard.in_recovery);

  const CloneBegin begin{"label", base::Lsn{77}, 5000, "lz4"};
  ASSERT_OK_AND_ASSIGN(const CloneBegin begun, DecodeCloneBegin(Encode(begin)));
  EXPECT_EQ(Encode(begun), Encode(begin));

  const ClonePlan plan{std::string(kCloneSessionIdSize, 'a'), base::Lsn{1}, 3, {{5, "/x"}}, 99};
  ASSERT_OK_AND_ASSIGN(const ClonePlan planned, DecodeClonePlan(Encode(plan)));
  EXPECT_EQ(Encode(planned), Encode(plan));

  const CloneEnd end{"control", "label", "map", 2, base::Lsn{9}, 10, 11};
  ASSERT_OK_AND_ASSIGN(const CloneEnd ended, DecodeCloneEnd(Encode(end)));
  EXPECT_EQ(Encode(ended), Encode(end));

  const CloneData data{{Piece()}};
  ASSERT_OK_AND_ASSIGN(const CloneData frame, DecodeCloneData(Encode(data)));
  EXPECT_EQ(frame.pieces, data.pieces);
}

TEST(CloneProtocolTest, WhatIsCutOffIsRefused) {
  const std::string bodies[] = {Encode(CloneData{{Piece()}}), Encode(CloneHello{"node"}),
                                Encode(CloneEnd{"c", "l", "m", 1, base::Lsn{2}, 3, 4})};
  for (size_t length = 0; length < bodies[0].size(); ++length) {
    EXPECT_FALSE(DecodeCloneData(bodies[0].substr(0, length)).ok()) << length;
  }
  for (size_t length = 0; length < bodies[1].size(); ++length) {
    EXPECT_FALSE(DecodeCloneHello(bodies[1].substr(0, length)).ok()) << length;
  }
  for (size_t length = 0; length < bodies[2].size(); ++length) {
    EXPECT_FALSE(DecodeCloneEnd(bodies[2].substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(DecodeCloneHello(bodies[1] + "x").ok());
}

TEST(CloneProtocolTest, NoPathLeadsOutOfTheDirectory) {
  for (const char* good :
       {"PG_VERSION", "base/1/2", "odd name", "..a/b..", "pg_tblspc/5/PG_15/1"}) {
    EXPECT_TRUE(IsSafePath(good)) << good;
  }
  for (const char* bad :
       {"", "/etc/passwd", "../x", "base/../../x", "base/..", ".", "base//1", "base/", "./base"}) {
    EXPECT_FALSE(IsSafePath(bad)) << bad;
    CloneData data{{Piece()}};
    data.pieces[0].path = bad;
    EXPECT_THAT(DecodeCloneData(Encode(data)), StatusIs(absl::StatusCode::kDataLoss)) << bad;
  }
  EXPECT_FALSE(IsSafePath(std::string_view("a\0b", 3)));
  EXPECT_FALSE(IsSafePath(std::string(1025, 'a')));
}

TEST(CloneProtocolTest, PiecesLieInsideTheirFrameAndFile) {
  const auto refused = [](void (*spoil)(ClonePiece&)) {
    CloneData data{{Piece()}};
    spoil(data.pieces[0]);
    return !DecodeCloneData(Encode(data)).ok();
  };
  EXPECT_FALSE(refused([](ClonePiece&) {}));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.length = 0; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.length = (1 << 20) + 1; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.frame_offset = 1; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.frame_offset = 0xffffffff; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.file_offset = 3 << 20; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.file_offset = ~uint64_t{0}; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.file_offset += 1; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.whole = true; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.mode = 0100644; }));
  EXPECT_TRUE(refused([](ClonePiece& piece) { piece.length -= 1; }));  // a checked page is cut off
  EXPECT_FALSE(DecodeCloneData(Encode(CloneData{})).ok());
  EXPECT_FALSE(
      DecodeCloneData(Encode(CloneData{std::vector<ClonePiece>(kClonePiecesMax + 1, Piece())}))
          .ok());
}

TEST(CloneProtocolTest, FailureKeepsCodeReasonAndText) {
  const absl::Status failure =
      base::WithReason(absl::DataLossError("base/5/16384 block 7: checksum"), {"SOME_REASON", {}});
  const absl::Status heard = DecodeFailure(EncodeFailure(failure));
  EXPECT_THAT(heard, StatusIs(absl::StatusCode::kDataLoss, HasSubstr("block 7")));
  EXPECT_EQ(base::GetReason(heard)->reason, "SOME_REASON");
  EXPECT_THAT(DecodeFailure(EncodeFailure(absl::UnavailableError(std::string(100000, 'x')))),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(DecodeFailure("").ok());
  EXPECT_FALSE(DecodeFailure(EncodeFailure(absl::OkStatus())).ok());
}

}  // namespace
}  // namespace metal::backup
