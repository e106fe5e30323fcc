#include "agent/pg/hba.h"

#include <sys/stat.h>

#include <cerrno>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr std::string_view kBegin =
    "# >>> managed by metal-agent; lines up to <<< are overwritten\n";
constexpr std::string_view kEnd = "# <<< managed by metal-agent\n";
constexpr const char* kMap = "metal";

absl::Status CheckToken(std::string_view what, std::string_view token) {
  if (!token.empty() &&
      token.find_first_of(std::string_view("\n\r\0", 3)) == std::string_view::npos) {
    return absl::OkStatus();
  }
  return base::Error(absl::StatusCode::kInvalidArgument, "{} \"{}\" is empty or holds a line break",
                     what, token);
}

// Puts the block on top of <data_dir>/<name>; keeps the mode. A missing file is made.
absl::Status InstallBlock(const std::string& data_dir, const char* name, const std::string& block) {
  const std::string path = base::JoinPath(data_dir, name);
  absl::StatusOr<std::string> old = base::ReadFile(path);
  mode_t mode = 0600;
  if (old.ok()) {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return base::ErrnoStatus(errno, "stat", path);
    mode = info.st_mode & 0777;
  } else if (!absl::IsNotFound(old.status())) {
    return old.status();
  }
  const std::string before = old.ok() ? *old : std::string();
  const std::string after = WithManagedBlockOnTop(before, block);
  if (old.ok() && after == before) return absl::OkStatus();
  return base::WriteFileDurably(path, after, mode);
}

}  // namespace

std::string QuoteHbaToken(std::string_view token) {
  std::string quoted = "\"";
  for (char c : token) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string ManagedHbaBlock(const HbaOptions& options) {
  const std::string user = QuoteHbaToken(options.superuser);
  std::string block(kBegin);
  block += fmt::format("local all {} peer map={}\n", user, kMap);
  block += fmt::format("local replication {} peer map={}\n", user, kMap);
  for (const std::string& network : options.replication_networks) {
    const std::string& role = options.replication_user;
    const std::string who = role.empty() ? "all" : QuoteHbaToken(role);
    block += fmt::format("host replication {} {} scram-sha-256\n", who, network);
    if (!role.empty()) {
      block += fmt::format("host \"postgres\" {} {} scram-sha-256\n", who, network);
    }
  }
  return block + std::string(kEnd);
}

std::string ManagedIdentBlock(const HbaOptions& options) {
  std::string block(kBegin);
  const std::string superuser = QuoteHbaToken(options.superuser);
  block += fmt::format("{} {} {}\n", kMap, QuoteHbaToken(options.os_user), superuser);
  // The OS user of the superuser's name logs in as it would without a map.
  if (options.os_user != options.superuser)
    block += fmt::format("{} {} {}\n", kMap, superuser, superuser);
  return block + std::string(kEnd);
}

std::string WithManagedBlockOnTop(std::string_view text, std::string_view block) {
  std::string rest(text);
  for (size_t begin = rest.find(kBegin); begin != std::string::npos; begin = rest.find(kBegin)) {
    const size_t end = rest.find(kEnd, begin);
    // A block whose end a user removed: only its first line is surely ours.
    rest.erase(begin, end == std::string::npos ? kBegin.size() : end + kEnd.size() - begin);
  }
  return std::string(block) + rest;
}

absl::Status InstallManagedHba(const std::string& data_dir, const HbaOptions& options) {
  METAL_RETURN_IF_ERROR(CheckToken("superuser", options.superuser));
  METAL_RETURN_IF_ERROR(CheckToken("OS user", options.os_user));
  for (const std::string& network : options.replication_networks) {
    METAL_RETURN_IF_ERROR(CheckToken("replication network", network));
    if (network.find_first_of(" \t\"#,") != std::string::npos) {
      return base::Error(
          absl::StatusCode::kInvalidArgument,
          "replication network \"{}\" is no address. HINT: use 10.0.0.0/8 or samenet", network);
    }
  }
  METAL_RETURN_IF_ERROR(InstallBlock(data_dir, "pg_ident.conf", ManagedIdentBlock(options)));
  return InstallBlock(data_dir, "pg_hba.conf", ManagedHbaBlock(options));
}

}  // namespace metal::pg
