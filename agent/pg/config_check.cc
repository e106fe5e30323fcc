#include "agent/pg/config_check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"
#include "agent/pg/memory_check.h"

namespace metal::pg {
namespace {

constexpr int kRuntimeComputedSince =
    15;  // -C of a computed setting checks everything that a start checks

std::vector<std::string_view> SplitTabs(std::string_view line) {
  std::vector<std::string_view> fields;
  while (true) {
    const size_t tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Text after "FATAL:  " and its like; nullopt when the line has no severity.
std::optional<std::string> Severe(std::string_view line,
                                  std::initializer_list<std::string_view> levels) {
  for (const std::string_view level : levels) {
    const std::string mark = fmt::format("{}:  ", level);
    const size_t found = line.find(mark);
    if (found != std::string_view::npos) return std::string(line.substr(found + mark.size()));
  }
  return std::nullopt;
}

// What a server makes in its data directory itself, or what tells it how to start. Anything else
// there may be a file of the user that a setting names by a relative path: certificates, keys,
// revocation lists.
constexpr std::string_view kServersOwn[] = {
    "PG_VERSION",       "backup_label",    "base",
    "current_logfiles", "global",          "pg_commit_ts",
    "pg_dynshmem",      "pg_logical",      "pg_multixact",
    "pg_notify",        "pg_replslot",     "pg_serial",
    "pg_snapshots",     "pg_stat",         "pg_stat_tmp",
    "pg_subtrans",      "pg_tblspc",       "pg_twophase",
    "pg_wal",           "pg_xact",         "postmaster.opts",
    "postmaster.pid",   "promote",         "recovery.signal",
    "standby.signal",   "tablespace_map",  "logrotate",
    "backup_manifest",  "postgresql.conf", "postgresql.auto.conf"};

bool IsServersOwn(std::string_view name) {
  return std::find(std::begin(kServersOwn), std::end(kServersOwn), name) != std::end(kServersOwn);
}

// A directory that postgres takes for a data directory, removed at the end.
class ScratchDirectory {
 public:
  static absl::StatusOr<ScratchDirectory> Make(const std::string& parent,
                                               const std::string& data_dir) {
    std::string path = base::JoinPath(parent, "config-check.XXXXXX");
    if (mkdtemp(path.data()) == nullptr) return base::ErrnoStatus(errno, "make directory", path);
    ScratchDirectory scratch(path);
    METAL_RETURN_IF_ERROR(base::MakeDirectories(base::JoinPath(path, "global"), 0700));
    for (const char* name : {"PG_VERSION", "global/pg_control"}) {
      METAL_ASSIGN_OR_RETURN(const std::string bytes,
                             base::ReadFile(base::JoinPath(data_dir, name)));
      METAL_RETURN_IF_ERROR(base::WriteFileDurably(base::JoinPath(path, name), bytes, 0600));
    }
    METAL_ASSIGN_OR_RETURN(const std::vector<std::string> names, base::ListDirectory(data_dir));
    for (const std::string& name : names) {
      if (IsServersOwn(name)) continue;
      const std::string link = base::JoinPath(path, name);
      if (symlink(base::JoinPath(data_dir, name).c_str(), link.c_str()) != 0)
        return base::ErrnoStatus(errno, "link", link);
    }
    return scratch;
  }
  ScratchDirectory(ScratchDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ~ScratchDirectory() {
    // What cannot be removed is a few kilobytes that the next look at the state directory shows.
    if (!path_.empty()) base::RemoveTree(path_).IgnoreError();
  }
  const std::string& path() const { return path_; }

 private:
  explicit ScratchDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

constexpr size_t kPrintedSetting = 2;  // in argv

// `postgres -C name` over the real configuration files; -C comes first, then root may run it too.
base::SubprocessOptions ReadOptions(const std::string& program, const std::string& name,
                                    const std::string& data_dir, const std::string& working_dir) {
  base::SubprocessOptions options;
  options.argv = {program, "-C", name, "-D", working_dir};
  for (const std::string& setting :
       {"config_file=" + base::JoinPath(data_dir, "postgresql.conf"),
        "data_directory=" + working_dir, std::string("external_pid_file=")}) {
    options.argv.push_back("-c");
    options.argv.push_back(setting);
  }
  options.timeout = absl::Seconds(30);
  return options;
}

absl::Status Rejected(const std::string& name, const std::string& reason) {
  return base::WithReason(
      base::Error(absl::StatusCode::kInvalidArgument, "postgres rejects {}: {}",
                  name.empty() ? std::string("the settings") : "setting " + name, reason),
      {"SETTING_REJECTED", {{"setting", name}, {"postgres_message", reason}}});
}

// Names in a list setting, without quotes.
std::vector<std::string> ListItems(const std::string& text) {
  std::vector<std::string> items(1);
  for (const char c : text) {
    if (c == ',') {
      items.emplace_back();
    } else if (c != ' ' && c != '"') {
      items.back() += c;
    }
  }
  std::erase(items, "");
  return items;
}

absl::Status CheckLibraries(const Install& install, const SettingMap& settings) {
  const auto found = settings.find("shared_preload_libraries");
  const std::string directory = base::JoinPath(base::DirectoryOf(install.bin_dir()), "lib");
  // Another layout than <root>/bin and <root>/lib: nothing is known, so nothing is refused.
  if (found == settings.end() || !base::PathExists(directory)) return absl::OkStatus();
  for (std::string library : ListItems(found->second)) {
    if (library.starts_with("$libdir/")) library = library.substr(8);
    const std::string path =
        library.starts_with("/") ? library : base::JoinPath(directory, library);
    if (base::PathExists(path) || base::PathExists(path + ".so")) continue;
    return Rejected(
        "shared_preload_libraries",
        fmt::format("could not access file \"{}\": No such file or directory", library));
  }
  return absl::OkStatus();
}

// What PostgreSQL 13 and 14 check only when they start.
absl::Status CheckStartRules(Install& install, const std::string& data_dir,
                             const SettingMap& settings) {
  METAL_RETURN_IF_ERROR(CheckLibraries(install, settings));
  constexpr const char* kReserved = "superuser_reserved_connections";
  constexpr const char* kConnections = "max_connections";
  if (!settings.contains(kReserved) && !settings.contains(kConnections)) return absl::OkStatus();
  int values[2] = {};
  const char* const names[2] = {kReserved, kConnections};
  for (int i = 0; i < 2; ++i) {
    std::string text;
    if (const auto found = settings.find(names[i]); found != settings.end()) {
      text = found->second;
    } else {
      METAL_ASSIGN_OR_RETURN(text, ReadConfiguredValue(install, data_dir, names[i]));
    }
    std::from_chars(text.data(), text.data() + text.size(), values[i]);
  }
  if (values[0] < values[1]) return absl::OkStatus();
  return Rejected(settings.contains(kReserved) ? kReserved : kConnections,
                  fmt::format("{} ({}) must be less than {} ({})", kReserved, values[0],
                              kConnections, values[1]));
}

// The number that postgres prints for a computed setting with `settings` on top of the files.
std::optional<uint64_t> Number(const base::SubprocessResult& printed) {
  const std::string& text = printed.standard_output;
  uint64_t value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  return printed.ok() && read.ec == std::errc() ? std::optional(value) : std::nullopt;
}

// What PostgreSQL asks of the machine only when it starts. `options` print shared_memory_size,
// `shown` is what they printed. What is not known refuses nothing.
absl::Status CheckMemory(base::SubprocessOptions options, const base::SubprocessResult& shown,
                         const SettingMap& settings) {
  const auto huge = settings.find("huge_pages");
  const bool huge_only = huge != settings.end() && huge->second == "on";
  if (!huge_only && !settings.contains("shared_buffers")) return absl::OkStatus();
  const std::optional<MemoryFacts> facts = ReadMemoryFacts();
  const std::optional<uint64_t> mib = Number(shown);
  if (!facts || !mib) return absl::OkStatus();
  if (const std::string why = WhyNotMapped(*mib, *facts); !why.empty()) {
    return Rejected(settings.contains("shared_buffers") ? "shared_buffers" : "huge_pages", why);
  }
  if (!huge_only) return absl::OkStatus();
  options.argv[kPrintedSetting] = "shared_memory_size_in_huge_pages";
  METAL_ASSIGN_OR_RETURN(const base::SubprocessResult pages, base::RunSubprocess(options));
  const std::string why = WhyNoHugePages(Number(pages).value_or(0), *facts);
  return why.empty() ? absl::OkStatus() : Rejected("huge_pages", why);
}

}  // namespace

std::vector<SettingInfo> ParseDescribeConfig(std::string_view output) {
  std::vector<SettingInfo> infos;
  while (!output.empty()) {
    const size_t end = output.find('\n');
    const std::vector<std::string_view> fields = SplitTabs(output.substr(0, end));
    output.remove_prefix(end == std::string_view::npos ? output.size() : end + 1);
    // name, context, group, type, default, minimum, maximum, description, more
    if (fields.size() < 8) continue;
    SettingInfo info;
    info.name = LowerCase(fields[0]);
    info.context = std::string(fields[1]);
    info.type = LowerCase(fields[3]);
    if (info.type == "boolean") info.type = "bool";
    info.boot_value = std::string(fields[4]);
    if (info.type == "bool") info.boot_value = info.boot_value == "TRUE" ? "on" : "off";
    info.min_value = std::string(fields[5]);
    info.max_value = std::string(fields[6]);
    info.description = std::string(fields[7]);
    infos.push_back(std::move(info));
  }
  return infos;
}

absl::StatusOr<std::vector<SettingInfo>> DescribeConfig(Install& install) {
  METAL_ASSIGN_OR_RETURN(const std::string program, install.Program("postgres"));
  base::SubprocessOptions options;
  options.argv = {program, "--describe-config"};
  METAL_ASSIGN_OR_RETURN(const base::SubprocessResult result, base::RunSubprocess(options));
  if (!result.ok()) {
    return base::Error(absl::StatusCode::kInternal, "{} --describe-config: {}", program,
                       result.LastLine());
  }
  return ParseDescribeConfig(result.standard_output);
}

std::string PostgresReason(std::string_view standard_error) {
  std::string reason, last;
  while (!standard_error.empty()) {
    const size_t end = standard_error.find('\n');
    const std::string_view line = standard_error.substr(0, end);
    standard_error.remove_prefix(end == std::string_view::npos ? standard_error.size() : end + 1);
    if (line.empty()) continue;
    last = std::string(line);
    if (auto text = Severe(line, {"FATAL", "ERROR", "PANIC"})) {
      // "configuration file … contains errors" only follows the line that says which.
      if (reason.empty()) reason = *text;
    } else if (reason.empty()) {
      if (auto message = Severe(line, {"LOG", "WARNING"});
          message && message->find("parameter") != std::string::npos) {
        reason = *message;
      }
    } else if (auto detail = Severe(line, {"DETAIL"})) {
      reason += ": " + *detail;
    } else if (auto hint = Severe(line, {"HINT"})) {
      reason += ". HINT: " + *hint;
    }
  }
  // What is found before the log is set up has only the program's name in front.
  constexpr std::string_view kProgram = "postgres: ";
  if (reason.empty()) reason = last.starts_with(kProgram) ? last.substr(kProgram.size()) : last;
  return reason;
}

absl::Status CheckSettings(Install& install, const std::string& data_dir,
                           const std::string& scratch_parent, const SettingMap& settings) {
  METAL_ASSIGN_OR_RETURN(const std::string program, install.Program("postgres"));
  METAL_ASSIGN_OR_RETURN(const PostgresVersion version, install.Version());
  METAL_ASSIGN_OR_RETURN(const ScratchDirectory scratch,
                         ScratchDirectory::Make(scratch_parent, data_dir));
  const std::string probe =
      version.major() >= kRuntimeComputedSince ? "shared_memory_size" : "port";
  base::SubprocessOptions options = ReadOptions(program, probe, data_dir, scratch.path());
  for (const auto& [name, value] : settings) {
    options.argv.push_back("-c");
    options.argv.push_back(fmt::format("{}={}", name, value));
  }
  METAL_ASSIGN_OR_RETURN(const base::SubprocessResult result, base::RunSubprocess(options));
  if (result.ok()) {
    if (version.major() >= kRuntimeComputedSince) return CheckMemory(options, result, settings);
    return CheckStartRules(install, data_dir, settings);
  }
  const std::string reason = PostgresReason(result.standard_error);
  std::string name = settings.size() == 1 ? settings.begin()->first : "";
  for (const auto& [candidate, value] : settings) {
    if (LowerCase(reason).find(candidate) != std::string::npos) name = candidate;
  }
  return Rejected(name, reason);
}

absl::StatusOr<std::string> ReadConfiguredValue(Install& install, const std::string& data_dir,
                                                const std::string& name) {
  METAL_ASSIGN_OR_RETURN(const std::string program, install.Program("postgres"));
  METAL_ASSIGN_OR_RETURN(const base::SubprocessResult result,
                         base::RunSubprocess(ReadOptions(program, name, data_dir, data_dir)));
  if (!result.ok()) {
    return base::Error(absl::StatusCode::kNotFound, "setting {}: {}", name,
                       PostgresReason(result.standard_error));
  }
  std::string value = result.standard_output;
  if (!value.empty() && value.back() == '\n') value.pop_back();
  return value;
}

}  // namespace metal::pg
