// The corpus of fuzz_clone_protocol: a body of every message that has one, and a header.
#include <string>
#include <utility>

#include "agent/backup/clone_protocol.h"
#include "agent/transfer/message.h"
#include "gtest/gtest.h"
#include "tests/harness/fuzz_corpus.h"
#include "tests/harness/status_matchers.h"

namespace metal::backup {
namespace {

using testing::CorpusInput;
using testing::kCorpusHint;

CloneData Frame() {
  const ClonePiece relation{.path = "base/5/16384.1",
                            .size = 3 << 20,
                            .mtime = 1795313700,
                            .file_offset = 1 << 20,
                            .length = 1 << 19,
                            .crc32c = 0xdeadbeef,
                            .checked = true,
                            .first_block = 131200,
                            .unsettled = {131201, 131207}};
  const ClonePiece small{.path = "PG_VERSION",
                         .size = 3,
                         .mtime = 1795313701,
                         .mode = 0640,
                         .frame_offset = 1 << 19,
                         .length = 3,
                         .crc32c = 7,
                         .whole = true,
                         .unsettled = {}};
  return {{relation, small}};
}

TEST(CloneCorpusTest, HasEveryMessage) {
  const std::string session(kCloneSessionIdSize, 'a');
  const CloneWelcome welcome{"node-b",
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
  const absl::Status failure = absl::UnavailableError("the source stops");
  const std::pair<const char*, std::string> bodies[] = {
      {"hello", Encode(CloneHello{"node-a"})},
      {"welcome", Encode(welcome)},
      {"begin", Encode(CloneBegin{"clone of node-a", base::Lsn{77}, 5000, "lz4"})},
      {"status", Encode(CloneStatus{"waiting for a checkpoint"})},
      {"plan", Encode(ClonePlan{session, base::Lsn{1}, 3, {{5, "/x"}}, 99})},
      {"attach", Encode(CloneAttach{session})},
      {"data", Encode(Frame())},
      {"end", Encode(CloneEnd{"control", "label", "5 /x\n", 2, base::Lsn{9}, 10, 11})},
      {"give_up", Encode(CloneGiveUp{session, failure})},
      {"failure", EncodeFailure(failure)},
      {"header", transfer::EncodeMessage(static_cast<uint8_t>(CloneMessage::kData), 5,
                                         Encode(CloneHello{"body"}), 1 << 20)},
  };
  for (const auto& [name, made] : bodies) {
    ASSERT_OK_AND_ASSIGN(const std::string input, CorpusInput("clone_protocol", name, made));
    EXPECT_EQ(input, made) << name << ". " << kCorpusHint;
  }
  EXPECT_OK(DecodeCloneData(Encode(Frame()))) << "it is one that a target takes";
}

}  // namespace
}  // namespace metal::backup
