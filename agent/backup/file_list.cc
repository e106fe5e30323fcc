#include "agent/backup/file_list.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <vector>

#include "agent/backup/sha256.h"
#include "agent/backup/text_fields.h"
#include "agent/base/check.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/store/frame.h"

namespace metal::backup {
namespace {

constexpr size_t kLineMax = 64 << 10;
constexpr size_t kChunk = 128 << 10;
constexpr int kLevel = 3;

absl::Status Damaged(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss, "file list: {}", what);
}

template <typename Number>
void AppendNumber(Number value, std::string& out) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  out.push_back('\t');
  out.append(digits, end);
}

void AppendHex8(uint32_t value, std::string& out) { out += fmt::format("\t{:08x}", value); }
void AppendMode(uint32_t mode, std::string& out) { out += fmt::format("\t{:04o}", mode); }

bool ParsePath(std::string_view field, std::string& path) {
  auto text = UnescapeField(field);
  if (!text || !IsSafeRelativePath(*text)) return false;
  path = std::move(*text);
  return true;
}

bool ParseMode(std::string_view field, uint32_t& mode) {
  return ParseField(field, mode, 8) && mode <= 07777;
}

using Fields = std::span<const std::string_view>;

bool ParseFile(Fields f, FileEntry& file) {
  return ParsePath(f[0], file.path) && ParseField(f[1], file.size) &&
         ParseField(f[2], file.mtime) && ParseMode(f[3], file.mode) && f[4].size() == 8 &&
         ParseField(f[4], file.crc32c, 16);
}

bool ParseExtent(Fields f, Extent& x) {
  return ParseField(f[0], x.file_offset) && ParseField(f[1], x.length) &&
         ParseField(f[2], x.pack) && ParseField(f[3], x.pack_offset) &&
         ParseField(f[4], x.stored_length) && ParseField(f[5], x.raw_length) &&
         ParseField(f[6], x.frame_offset) && x.length > 0 && x.raw_length <= store::kFrameRawMax &&
         x.frame_offset <= x.raw_length && x.length <= x.raw_length - x.frame_offset &&
         x.stored_length > store::kFrameHeaderSize &&
         x.stored_length <= store::kFrameHeaderSize + store::kFrameStoredMax &&
         x.pack_offset >= store::kPackHeaderSize && x.pack_offset <= (1ull << 62);
}

bool ParseTablespace(Fields f, FileListRecord& record) {
  auto location = UnescapeField(f[1]);
  if (!location || location->empty() || (*location)[0] != '/' ||
      location->find('\0') != std::string::npos || !ParseField(f[0], record.tablespace)) {
    return false;
  }
  record.location = std::move(*location);
  return true;
}

}  // namespace

void AppendRecord(const FileListRecord& r, std::string& out) {
  switch (r.kind) {
    case RecordKind::kDirectory:
      out += "D\t";
      AppendEscaped(r.file.path, out);
      AppendMode(r.file.mode, out);
      break;
    case RecordKind::kTablespace:
      out += "L";
      AppendNumber(r.tablespace, out);
      out += '\t';
      AppendEscaped(r.location, out);
      break;
    case RecordKind::kFile:
      out += "F\t";
      AppendEscaped(r.file.path, out);
      AppendNumber(r.file.size, out);
      AppendNumber(r.file.mtime, out);
      AppendMode(r.file.mode, out);
      AppendHex8(r.file.crc32c, out);
      break;
    case RecordKind::kExtent:
      out += "X";
      AppendNumber(r.extent.file_offset, out);
      AppendNumber(r.extent.length, out);
      AppendNumber(r.extent.pack, out);
      AppendNumber(r.extent.pack_offset, out);
      AppendNumber(r.extent.stored_length, out);
      AppendNumber(r.extent.raw_length, out);
      AppendNumber(r.extent.frame_offset, out);
      break;
    case RecordKind::kEnd:
      out += "E";
      for (const uint64_t n : {r.files, r.directories, r.extents, r.bytes}) AppendNumber(n, out);
      break;
  }
  out += '\n';
}

absl::Status ParseRecord(std::string_view line, FileListRecord& record) {
  std::string_view parts[8];
  const size_t count = SplitFields(line, parts);
  const Fields f = Fields(parts).subspan(1);
  const auto is = [&](std::string_view key, size_t fields) {
    return parts[0] == key && count == fields + 1;
  };
  bool good = false;
  if (is("X", 7)) {
    record.kind = RecordKind::kExtent;
    good = ParseExtent(f, record.extent);
  } else if (is("F", 5)) {
    record.kind = RecordKind::kFile;
    good = ParseFile(f, record.file);
  } else if (is("D", 2)) {
    record.kind = RecordKind::kDirectory;
    good = ParsePath(f[0], record.file.path) && ParseMode(f[1], record.file.mode);
  } else if (is("L", 2)) {
    record.kind = RecordKind::kTablespace;
    good = ParseTablespace(f, record);
  } else if (is("E", 4)) {
    record.kind = RecordKind::kEnd;
    good = ParseField(f[0], record.files) && ParseField(f[1], record.directories) &&
           ParseField(f[2], record.extents) && ParseField(f[3], record.bytes);
  }
  if (good) return absl::OkStatus();
  return Damaged(fmt::format("bad line \"{}\"", EscapeField(line.substr(0, 200))));
}

// ---- writer

struct FileListWriter::Stream {
  std::string path;
  base::UniqueFd fd;
  ZSTD_CCtx* context = nullptr;
  Sha256 sha256;
  std::string pending;  // uncompressed
  std::string compressed;

  ~Stream() { ZSTD_freeCCtx(context); }

  absl::Status Flush(ZSTD_EndDirective mode) {
    sha256.Update(pending);
    ZSTD_inBuffer in{pending.data(), pending.size(), 0};
    size_t remaining = 0;
    do {
      ZSTD_outBuffer out{compressed.data(), compressed.size(), 0};
      remaining = ZSTD_compressStream2(context, &out, &in, mode);
      if (ZSTD_isError(remaining)) {
        return base::Error(absl::StatusCode::kInternal, "compress {}: {}", path,
                           ZSTD_getErrorName(remaining));
      }
      METAL_RETURN_IF_ERROR(
          base::WriteAll(fd.get(), std::string_view(compressed.data(), out.pos), path));
    } while (mode == ZSTD_e_end ? remaining != 0 : in.pos < in.size);
    pending.clear();
    return absl::OkStatus();
  }
};

FileListWriter::FileListWriter(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
FileListWriter::~FileListWriter() = default;

absl::StatusOr<std::unique_ptr<FileListWriter>> FileListWriter::Create(const std::string& path) {
  auto stream = std::make_unique<Stream>();
  stream->path = path;
  METAL_ASSIGN_OR_RETURN(stream->fd, base::OpenFile(path, O_WRONLY | O_CREAT | O_EXCL, 0640));
  stream->context = ZSTD_createCCtx();
  METAL_CHECK(stream->context != nullptr);
  ZSTD_CCtx_setParameter(stream->context, ZSTD_c_compressionLevel, kLevel);
  ZSTD_CCtx_setParameter(stream->context, ZSTD_c_checksumFlag, 1);
  stream->pending.reserve(kChunk + kLineMax);
  stream->compressed.resize(ZSTD_CStreamOutSize());
  return std::unique_ptr<FileListWriter>(new FileListWriter(std::move(stream)));
}

absl::Status FileListWriter::Append(const FileListRecord& record) {
  line_.clear();
  AppendRecord(record, line_);
  if (line_.size() > kLineMax) {
    return base::Error(absl::StatusCode::kInvalidArgument, "file list: a path is too long: {}...",
                       line_.substr(0, 200));
  }
  totals_.raw_bytes += line_.size();
  stream_->pending += line_;
  if (stream_->pending.size() >= kChunk) return stream_->Flush(ZSTD_e_continue);
  return absl::OkStatus();
}

absl::Status FileListWriter::AddDirectory(std::string_view path, uint32_t mode) {
  scratch_.kind = RecordKind::kDirectory;
  scratch_.file.path = path;
  scratch_.file.mode = mode;
  ++totals_.directories;
  return Append(scratch_);
}

absl::Status FileListWriter::AddTablespace(uint32_t oid, std::string_view location) {
  scratch_.kind = RecordKind::kTablespace;
  scratch_.tablespace = oid;
  scratch_.location = location;
  return Append(scratch_);
}

absl::Status FileListWriter::AddFile(const FileEntry& file, std::span<const Extent> extents) {
  scratch_.kind = RecordKind::kFile;
  scratch_.file = file;
  ++totals_.files;
  totals_.bytes += file.size;
  METAL_RETURN_IF_ERROR(Append(scratch_));
  scratch_.kind = RecordKind::kExtent;
  for (const Extent& extent : extents) {
    scratch_.extent = extent;
    ++totals_.extents;
    METAL_RETURN_IF_ERROR(Append(scratch_));
  }
  return absl::OkStatus();
}

absl::StatusOr<FileListTotals> FileListWriter::Finish() {
  scratch_.kind = RecordKind::kEnd;
  scratch_.files = totals_.files;
  scratch_.directories = totals_.directories;
  scratch_.extents = totals_.extents;
  scratch_.bytes = totals_.bytes;
  METAL_RETURN_IF_ERROR(Append(scratch_));
  METAL_RETURN_IF_ERROR(stream_->Flush(ZSTD_e_end));
  if (fsync(stream_->fd.get()) != 0) return base::ErrnoStatus(errno, "fsync", stream_->path);
  METAL_RETURN_IF_ERROR(stream_->fd.Close());
  totals_.sha256 = stream_->sha256.Finish();
  return totals_;
}

// ---- reader

struct FileListReader::Stream {
  ByteSource source;
  ZSTD_DCtx* context = ZSTD_createDCtx();
  Sha256 sha256;
  std::vector<char> compressed = std::vector<char>(kChunk);
  size_t compressed_pos = 0, compressed_end = 0;
  bool source_ended = false;
  bool frame_complete = false;
  std::string text;  // decompressed, from `line_start` on not yet handed out
  size_t line_start = 0;
  size_t scanned = 0;  // no newline in [line_start, scanned)
  uint64_t raw_bytes = 0;

  ~Stream() { ZSTD_freeDCtx(context); }

  // Appends decompressed bytes to `text`; false at the end of the stream.
  absl::StatusOr<bool> Fill() {
    if (compressed_pos == compressed_end && !source_ended) {
      METAL_ASSIGN_OR_RETURN(compressed_end, source(std::span<char>(compressed)));
      compressed_pos = 0;
      source_ended = compressed_end == 0;
    }
    if (compressed_pos == compressed_end && frame_complete) return false;
    const size_t old_size = text.size();
    text.resize(old_size + kChunk);
    ZSTD_inBuffer in{compressed.data() + compressed_pos, compressed_end - compressed_pos, 0};
    ZSTD_outBuffer out{text.data() + old_size, kChunk, 0};
    const size_t result = ZSTD_decompressStream(context, &out, &in);
    text.resize(old_size + out.pos);
    if (ZSTD_isError(result)) return Damaged(ZSTD_getErrorName(result));
    compressed_pos += in.pos;
    frame_complete = result == 0;
    raw_bytes += out.pos;
    sha256.Update(std::string_view(text).substr(old_size));
    if (out.pos == 0 && in.pos == 0 && source_ended) return Damaged("the end is missing");
    return true;
  }
};

FileListReader::FileListReader(ByteSource source, Expected expected)
    : stream_(std::make_unique<Stream>()), expected_(std::move(expected)) {
  stream_->source = std::move(source);
}
FileListReader::~FileListReader() = default;

absl::StatusOr<std::unique_ptr<FileListReader>> FileListReader::Open(const std::string& path,
                                                                     Expected expected) {
  METAL_ASSIGN_OR_RETURN(base::UniqueFd opened, base::OpenFile(path, O_RDONLY));
  auto fd = std::make_shared<base::UniqueFd>(std::move(opened));
  auto source = [fd, path](std::span<char> out) -> absl::StatusOr<size_t> {
    while (true) {
      const ssize_t n = read(fd->get(), out.data(), out.size());
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) return base::ErrnoStatus(errno, "read", path);
    }
  };
  return std::make_unique<FileListReader>(std::move(source), std::move(expected));
}

absl::StatusOr<std::string_view> FileListReader::NextLine() {
  Stream& s = *stream_;
  while (true) {
    const size_t newline = s.text.find('\n', s.scanned);
    if (newline != std::string::npos) {
      const std::string_view line =
          std::string_view(s.text).substr(s.line_start, newline - s.line_start);
      s.line_start = s.scanned = newline + 1;
      return line;
    }
    if (s.text.size() - s.line_start > kLineMax) return Damaged("a line is too long");
    s.text.erase(0, s.line_start);
    s.line_start = 0;
    s.scanned = s.text.size();
    if (s.raw_bytes > expected_.raw_bytes) return Damaged("longer than the manifest says");
    METAL_ASSIGN_OR_RETURN(const bool more, s.Fill());
    if (!more) return Damaged("the end is missing");
  }
}

absl::Status FileListReader::CheckSequence(const FileListRecord& record) {
  if (record.kind != RecordKind::kExtent) {
    if (file_covered_ != file_size_) return Damaged("extents do not cover their file");
    file_size_ = file_covered_ = 0;
  }
  switch (record.kind) {
    case RecordKind::kDirectory:
      ++totals_.directories;
      break;
    case RecordKind::kFile:
      ++totals_.files;
      totals_.bytes += record.file.size;
      file_size_ = record.file.size;
      break;
    case RecordKind::kExtent:
      ++totals_.extents;
      if (record.extent.file_offset != file_covered_ ||
          record.extent.length > file_size_ - file_covered_) {
        return Damaged("an extent is out of order or passes the end of its file");
      }
      if (record.extent.pack >= expected_.pack_count) return Damaged("an extent names no pack");
      file_covered_ += record.extent.length;
      break;
    case RecordKind::kTablespace:
    case RecordKind::kEnd:
      break;
  }
  return absl::OkStatus();
}

absl::Status FileListReader::CheckEnd(const FileListRecord& record) {
  Stream& s = *stream_;
  if (record.files != totals_.files || record.directories != totals_.directories ||
      record.extents != totals_.extents || record.bytes != totals_.bytes) {
    return Damaged("counts do not match");
  }
  if (s.line_start != s.text.size()) return Damaged("lines follow the end");
  while (true) {
    METAL_ASSIGN_OR_RETURN(const bool more, s.Fill());
    if (s.line_start != s.text.size()) return Damaged("lines follow the end");
    if (!more) break;
  }
  if (s.raw_bytes != expected_.raw_bytes || s.sha256.Finish() != expected_.sha256) {
    return Damaged("contents do not match the hash in the manifest");
  }
  return absl::OkStatus();
}

absl::Status FileListReader::Next(FileListRecord& record) {
  METAL_ASSIGN_OR_RETURN(const std::string_view line, NextLine());
  METAL_RETURN_IF_ERROR(ParseRecord(line, record));
  METAL_RETURN_IF_ERROR(CheckSequence(record));
  if (record.kind == RecordKind::kEnd) return CheckEnd(record);
  return absl::OkStatus();
}

}  // namespace metal::backup
