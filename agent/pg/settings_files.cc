#include "agent/pg/settings_files.h"

#include <sys/stat.h>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr int kMaxDepth = 10;  // CONF_FILE_MAX_DEPTH

class Reader {
 public:
  explicit Reader(SettingMap& settings) : settings_(settings) {}

  absl::Status File(const std::string& path, int depth) {
    if (depth > kMaxDepth) {
      return base::Error(absl::StatusCode::kFailedPrecondition,
                         "{}: files include each other more than {} deep", path, kMaxDepth);
    }
    METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path));
    const absl::Status read =
        ReadSettingLines(text, [&](const std::string& name, const std::string& value) {
          return Line(path, name, value, depth);
        });
    return base::Annotate(read, path);
  }

 private:
  absl::Status Line(const std::string& file, const std::string& name, const std::string& value,
                    int depth) {
    const bool file_must_be = name == "include";
    if (!file_must_be && name != "include_if_exists" && name != "include_dir") {
      settings_[name] = value;
      return absl::OkStatus();
    }
    const std::string path =
        value.starts_with("/") ? value : base::JoinPath(base::DirectoryOf(file), value);
    if (name == "include_dir") return Directory(path, depth + 1);
    const absl::Status read = File(path, depth + 1);
    if (file_must_be || !absl::IsNotFound(read)) return read;
    // A file that it includes may be what is missing.
    METAL_ASSIGN_OR_RETURN(const bool present, base::Exists(path));
    return present ? read : absl::OkStatus();
  }

  absl::Status Directory(const std::string& path, int depth) {
    METAL_ASSIGN_OR_RETURN(const auto names, base::ListDirectory(path));
    for (const std::string& name : names) {
      if (name.starts_with(".") || !name.ends_with(".conf")) continue;
      const std::string file = base::JoinPath(path, name);
      struct stat info;
      if (stat(file.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) continue;
      METAL_RETURN_IF_ERROR(File(file, depth));
    }
    return absl::OkStatus();
  }

  SettingMap& settings_;
};

}  // namespace

absl::Status ReadSettingFiles(const std::string& path, SettingMap& settings) {
  return Reader(settings).File(path, 0);
}

}  // namespace metal::pg
