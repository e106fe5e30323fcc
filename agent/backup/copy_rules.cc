#include "agent/backup/copy_rules.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "fmt/format.h"

namespace metal::backup {
namespace {

// Directories at the top whose contents PostgreSQL makes anew at start.
constexpr std::array<std::string_view, 8> kEmptyDirectories = {
    "pg_dynshmem",  "pg_notify",   "pg_replslot", "pg_serial",
    "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"};

enum class Match : uint8_t { kExact, kPrefix };
enum class Where : uint8_t { kAnywhere, kTop };

struct SkipRule {
  std::string_view name;
  Match match;
  Where where;
};

constexpr std::array<SkipRule, 19> kSkipRules = {{
    // The server's own, as basebackup.c skips them.
    {"postmaster.pid", Match::kExact, Where::kAnywhere},
    {"postmaster.opts", Match::kExact, Where::kAnywhere},
    {"postgresql.auto.conf.tmp", Match::kExact, Where::kAnywhere},
    {"current_logfiles.tmp", Match::kExact, Where::kAnywhere},
    {"pg_internal.init", Match::kPrefix, Where::kAnywhere},
    {"backup_label", Match::kExact, Where::kAnywhere},
    {"tablespace_map", Match::kExact, Where::kAnywhere},
    {"backup_manifest", Match::kExact, Where::kAnywhere},
    {"pgsql_tmp", Match::kPrefix, Where::kAnywhere},
    // Left over from an earlier restore or backup: they would change what the copy does at its
    // start.
    {"backup_label.old", Match::kExact, Where::kTop},
    {"tablespace_map.old", Match::kExact, Where::kTop},
    {"backup_manifest.tmp", Match::kExact, Where::kTop},
    {"recovery.signal", Match::kExact, Where::kTop},
    {"standby.signal", Match::kExact, Where::kTop},
    // The agent's own.
    {"metal.incomplete", Match::kPrefix, Where::kTop},
    {"metal.initdb", Match::kExact, Where::kTop},
    {"metal.readonly.conf", Match::kExact, Where::kTop},  // this disk is full, not that of the copy
    {"metal.restoring", Match::kPrefix, Where::kAnywhere},
    {".metal-probe", Match::kPrefix, Where::kAnywhere},
}};

std::string_view BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

bool IsDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool IsSkipped(std::string_view path) {
  const std::string_view name = BaseName(path);
  const bool top = name.size() == path.size();
  for (const SkipRule& rule : kSkipRules) {
    if (rule.where == Where::kTop && !top) continue;
    if (rule.match == Match::kExact ? name == rule.name
                                    : name.substr(0, rule.name.size()) == rule.name) {
      return true;
    }
  }
  return false;
}

// Takes the part up to the next slash off `path`.
std::string_view TakePart(std::string_view& path) {
  const size_t slash = path.find('/');
  const std::string_view part = path.substr(0, slash);
  path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  return part;
}

}  // namespace

EntryAction ClassifyDirectory(std::string_view path) {
  if (IsSkipped(path)) return EntryAction::kSkip;
  if (std::find(kEmptyDirectories.begin(), kEmptyDirectories.end(), path) !=
      kEmptyDirectories.end()) {
    return EntryAction::kKeepEmpty;
  }
  return EntryAction::kCopy;
}

EntryAction ClassifyFile(std::string_view path) {
  if (path == "global/pg_control") return EntryAction::kCopyLast;
  if (IsSkipped(path)) return EntryAction::kSkip;
  const std::string_view name = BaseName(path);
  const std::string_view directory =
      path.substr(0, path.size() - name.size() - (name.size() < path.size() ? 1 : 0));
  if (IsRelationDirectory(directory) && IsTemporaryRelation(name)) return EntryAction::kSkip;
  return EntryAction::kCopy;
}

bool IsRelationDirectory(std::string_view directory) {
  if (directory == "global") return true;
  std::string_view rest = directory;
  const std::string_view first = TakePart(rest);
  if (first == "base") return IsDigits(rest);
  if (first != "pg_tblspc") return false;
  const std::string_view oid = TakePart(rest);
  const std::string_view version = TakePart(rest);
  return IsDigits(oid) && version.substr(0, 3) == "PG_" && IsDigits(rest);
}

std::optional<RelationFile> ParseRelationFile(std::string_view name) {
  RelationFile file;
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  if (digits == 0) return std::nullopt;
  file.relation = name.substr(0, digits);
  std::string_view rest = name.substr(digits);
  constexpr std::array<std::pair<std::string_view, RelationFork>, 3> kForks = {{
      {"_fsm", RelationFork::kFreeSpaceMap},
      {"_vm", RelationFork::kVisibilityMap},
      {"_init", RelationFork::kInit},
  }};
  for (const auto& [suffix, fork] : kForks) {
    if (rest.substr(0, suffix.size()) == suffix) {
      file.fork = fork;
      rest.remove_prefix(suffix.size());
      break;
    }
  }
  if (rest.empty()) return file;
  if (rest[0] != '.' || !IsDigits(rest.substr(1))) return std::nullopt;
  rest.remove_prefix(1);
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), file.segment);
  if (error != std::errc()) return std::nullopt;
  return file;
}

bool IsTemporaryRelation(std::string_view name) {
  if (name.empty() || name[0] != 't') return false;
  name.remove_prefix(1);
  const size_t underscore = name.find('_');
  if (underscore == std::string_view::npos || !IsDigits(name.substr(0, underscore))) return false;
  return ParseRelationFile(name.substr(underscore + 1)).has_value();
}

std::optional<uint32_t> ParseOid(std::string_view text) {
  if (!IsDigits(text) || text[0] == '0') return std::nullopt;
  uint32_t oid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), oid);
  if (error != std::errc()) return std::nullopt;
  return oid;
}

std::string TablespaceVersionDirectory(int major_version, uint32_t catalog_version) {
  return fmt::format("PG_{}_{}", major_version, catalog_version);
}

}  // namespace metal::backup
