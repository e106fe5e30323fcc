#include "agent/backup/manifest_json.h"

#include <fcntl.h>

#include <bit>
#include <cerrno>
#include <cstdio>

#include "absl/time/time.h"
#include "agent/backup/text_fields.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr size_t kFlushAt = 64 << 10;

bool IsPlainAscii(std::string_view text) {
  for (const char c : text) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

// "Path": "…", or "Encoded-Path": hexadecimal for bytes that JSON might not carry.
std::string PathMember(const std::string& path) {
  if (!IsPlainAscii(path)) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(path.data());
    return fmt::format("\"Encoded-Path\": \"{}\"", HexOf({bytes, path.size()}));
  }
  std::string escaped;
  for (const char c : path) {
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return fmt::format("\"Path\": \"{}\"", escaped);
}

}  // namespace

absl::StatusOr<std::unique_ptr<BackupManifestWriter>> BackupManifestWriter::Create(
    Options options) {
  std::unique_ptr<BackupManifestWriter> writer(new BackupManifestWriter(std::move(options)));
  METAL_ASSIGN_OR_RETURN(writer->fd_, base::OpenFile(writer->options_.path + ".tmp",
                                                     O_WRONLY | O_CREAT | O_EXCL, 0600));
  const bool second = writer->options_.major_version >= 17;
  std::string head =
      fmt::format("{{ \"PostgreSQL-Backup-Manifest-Version\": {},\n", second ? 2 : 1);
  if (second)
    head += fmt::format("\"System-Identifier\": {},\n", writer->options_.system_identifier);
  head += "\"Files\": [";
  METAL_RETURN_IF_ERROR(writer->Append(head));
  return writer;
}

absl::Status BackupManifestWriter::Append(std::string_view text) {
  pending_ += text;
  return pending_.size() >= kFlushAt ? Flush() : absl::OkStatus();
}

absl::Status BackupManifestWriter::Flush() {
  sha256_.Update(pending_);
  const absl::Status status = base::WriteAll(fd_.get(), pending_, options_.path);
  pending_.clear();
  return status;
}

absl::Status BackupManifestWriter::AddFile(const FileEntry& file) {
  const std::string separator = first_ ? "\n" : ",\n";
  first_ = false;
  const std::string time = absl::FormatTime("%Y-%m-%d %H:%M:%S GMT",
                                            absl::FromUnixSeconds(file.mtime), absl::UTCTimeZone());
  // PostgreSQL prints the CRC's four bytes as they lie in memory.
  const uint32_t crc = __builtin_bswap32(file.crc32c);
  return Append(
      fmt::format("{}{{ {}, \"Size\": {}, \"Last-Modified\": \"{}\", "
                  "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"{:08x}\" }}",
                  separator, PathMember(file.path), file.size, time, crc));
}

absl::Status BackupManifestWriter::Finish() {
  METAL_RETURN_IF_ERROR(Append(
      fmt::format("\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", "
                  "\"End-LSN\": \"{}\" }}\n],\n",
                  options_.timeline, options_.start_lsn.ToString(), options_.stop_lsn.ToString())));
  METAL_RETURN_IF_ERROR(Flush());
  METAL_RETURN_IF_ERROR(
      base::WriteAll(fd_.get(), fmt::format("\"Manifest-Checksum\": \"{}\"}}\n", sha256_.Finish()),
                     options_.path));
  METAL_RETURN_IF_ERROR(fd_.Close());
  const std::string temporary = options_.path + ".tmp";
  if (rename(temporary.c_str(), options_.path.c_str()) != 0) {
    return base::ErrnoStatus(errno, "rename", temporary);
  }
  return absl::OkStatus();
}

}  // namespace metal::backup
