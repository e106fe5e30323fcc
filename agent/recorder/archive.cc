#include "agent/recorder/archive.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "agent/base/status.h"

namespace metal::recorder {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kPiece = 128 * 1024;
constexpr int kLevel = 3;

// Fields of a ustar header: where they are, and how long.
struct Field {
  size_t at, size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12},
    kTime{136, 12}, kSum{148, 8};
constexpr size_t kType = 156, kMagic = 257;

using Header = std::array<char, kBlock>;

void PutText(Header& header, Field field, std::string_view text) {
  std::memcpy(header.data() + field.at, text.data(), std::min(text.size(), field.size));
}
void PutOctal(Header& header, Field field, uint64_t number) {
  PutText(header, field, fmt::format("{:0{}o}", number, field.size - 1));
}

Header HeaderOf(const std::string& name, uint64_t size, absl::Time time) {
  Header header{};
  PutText(header, kName, name);
  PutOctal(header, kMode, 0644);
  PutOctal(header, kUid, 0);
  PutOctal(header, kGid, 0);
  PutOctal(header, kSize, size);
  PutOctal(header, kTime, static_cast<uint64_t>(std::max<int64_t>(absl::ToUnixSeconds(time), 0)));
  header[kType] = '0';
  std::memcpy(header.data() + kMagic, "ustar\00000", 8);
  std::memset(header.data() + kSum.at, ' ', kSum.size);  // counted as blanks
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  PutText(header, kSum, fmt::format("{:06o}", sum));
  header[kSum.at + 6] = '\0';
  return header;
}

}  // namespace

void ArchiveWriter::FreeStream::operator()(void* stream) const {
  ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(stream));
}

ArchiveWriter::ArchiveWriter(std::string directory, absl::Time time, ByteSink sink)
    : directory_(std::move(directory)),
      time_(time),
      sink_(std::move(sink)),
      stream_(ZSTD_createCCtx()),
      buffer_(kPiece) {
  auto* const stream = static_cast<ZSTD_CCtx*>(stream_.get());
  ZSTD_CCtx_setParameter(stream, ZSTD_c_compressionLevel, kLevel);
  ZSTD_CCtx_setParameter(stream, ZSTD_c_checksumFlag, 1);
}

ArchiveWriter::~ArchiveWriter() = default;

absl::Status ArchiveWriter::AddFile(const std::string& name, std::string_view contents) {
  const std::string full = directory_ + "/" + name;
  if (full.size() >= kName.size || name.empty())
    return base::Error(absl::StatusCode::kInvalidArgument, "archive: name '{}' is too long", full);
  const Header header = HeaderOf(full, contents.size(), time_);
  METAL_RETURN_IF_ERROR(Write({header.data(), header.size()}));
  METAL_RETURN_IF_ERROR(Write(contents));
  METAL_RETURN_IF_ERROR(Write(std::string((kBlock - contents.size() % kBlock) % kBlock, '\0')));
  names_.push_back(name);
  return absl::OkStatus();
}

absl::Status ArchiveWriter::Finish() { return Write(std::string(2 * kBlock, '\0'), true); }

absl::Status ArchiveWriter::Write(std::string_view bytes, bool end) {
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  size_t left = 0;
  do {
    ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
    left = ZSTD_compressStream2(static_cast<ZSTD_CCtx*>(stream_.get()), &out, &in,
                                end ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(left) != 0)
      return base::Error(absl::StatusCode::kInternal, "archive: {}", ZSTD_getErrorName(left));
    if (out.pos > 0) METAL_RETURN_IF_ERROR(sink_({buffer_.data(), out.pos}));
  } while (in.pos < in.size || (end && left > 0));
  return absl::OkStatus();
}

}  // namespace metal::recorder
