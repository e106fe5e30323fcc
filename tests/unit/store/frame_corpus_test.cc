// The corpus of fuzz_frame: a small frame of each codec, and the header of a pack.
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "agent/base/crc32c.h"
#include "agent/store/frame.h"
#include "agent/stream/hash.h"
#include "gtest/gtest.h"
#include "tests/harness/fuzz_corpus.h"
#include "tests/harness/status_matchers.h"

namespace metal::store {
namespace {

using testing::CorpusInput;
using testing::kCorpusHint;

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// Compressible, and not all alike.
std::string Rows() {
  std::string rows;
  for (int i = 0; i < 60; ++i) rows += std::to_string(i * 7919) + "\tthe same words in each row\n";
  return rows;
}

std::string Frame(stream::CodecKind codec, const std::string& raw) {
  const auto encoder = stream::MakeEncoder(codec, 1);
  std::vector<std::byte> frame(kFrameHeaderSize + stream::EncodedBound(raw.size()));
  const auto payload = std::span(frame).subspan(kFrameHeaderSize);
  const size_t length = *(*encoder)->Encode(BytesOf(raw), payload);
  const FrameHeader header{codec, static_cast<uint32_t>(raw.size()), static_cast<uint32_t>(length),
                           stream::Xxh3(payload.first(length)), base::Crc32c(BytesOf(raw))};
  EncodeFrameHeader(header, std::span(frame).first<kFrameHeaderSize>());
  return {reinterpret_cast<const char*>(frame.data()), kFrameHeaderSize + length};
}

TEST(FrameCorpusTest, HasAFrameOfEachCodec) {
  const auto decoder = stream::MakeDecoder();
  const std::string rows = Rows();
  for (const auto& [name, codec] : {std::pair{"none", stream::CodecKind::kNone},
                                    {"zstd", stream::CodecKind::kZstd},
                                    {"lz4", stream::CodecKind::kLz4}}) {
    // Another release of a library may pack the same rows otherwise.
    ASSERT_OK_AND_ASSIGN(const std::string input, CorpusInput("frame", name, Frame(codec, rows)));
    std::string raw(kFrameRawMax, '\0');
    const auto header =
        DecodeFrame(BytesOf(input), std::as_writable_bytes(std::span(raw)), *decoder);
    ASSERT_OK(header) << name << ". " << kCorpusHint;
    EXPECT_EQ(header->codec, codec) << name;
    EXPECT_EQ(raw.substr(0, header->raw_length), rows) << name;
  }
}

TEST(FrameCorpusTest, HasTheHeaderOfAPack) {
  const PackHeader header{7300000000000000001, 3, "20261126T120000Z-F"};
  std::string made(kPackHeaderSize, '\0');
  EncodePackHeader(header, std::as_writable_bytes(std::span(made)).first<kPackHeaderSize>());
  ASSERT_OK_AND_ASSIGN(const std::string input, CorpusInput("frame", "pack", made));
  EXPECT_EQ(input, made) << kCorpusHint;
}

}  // namespace
}  // namespace metal::store
