#include "agent/backup/restore_notes.h"

#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <span>

#include "agent/backup/text_fields.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/data_directory.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr std::string_view kTask = "restore";
constexpr size_t kSentinelLimit = 1 << 20;
constexpr size_t kMarkerLimit = 4096;

// The first line with its newline, or nothing: a marker is whole or it is none.
std::string WholeLine(const std::string& text) {
  const size_t end = text.find('\n');
  return end == std::string::npos ? "" : text.substr(0, end);
}

absl::Status AlreadyThere(const std::string& place) {
  return base::Error(absl::StatusCode::kAlreadyExists,
                     "{} was just made by somebody else. HINT: is another restore running there? "
                     "Map it elsewhere",
                     place);
}

void TakeNote(std::string_view line, RestoreNotes& notes) {
  const size_t tab = line.find('\t');
  if (tab == std::string_view::npos) return;
  const auto value = UnescapeField(line.substr(tab + 1));
  if (!value || value->empty()) return;
  const std::string_view key = line.substr(0, tab);
  if (key == "id") notes.id = *value;
  if (key == "backup") notes.backup = *value;
  if ((*value)[0] != '/') return;
  if (key == "tablespace") notes.version_directories.push_back(*value);
  if (key == "wal") notes.wal_directory = *value;
}

}  // namespace

std::string PlaceMarkerBefore(const std::string& id) {
  return fmt::format("{}.{}", kPlaceMarker, id);
}

absl::StatusOr<std::string> NewRestoreId() {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) {
    return base::ErrnoStatus(errno, "read", "random bytes");
  }
  return HexOf(bytes);
}

absl::StatusOr<std::optional<RestoreNotes>> ReadRestoreNotes(const std::string& target) {
  auto text = base::ReadFile(JoinPath(target, pg::kIncompleteSentinel), kSentinelLimit);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  if (!text.ok()) return text.status();
  if (WholeLine(*text) != kTask) return std::nullopt;
  RestoreNotes notes;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    TakeNote(rest.substr(0, end), notes);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  return notes;
}

absl::Status WriteRestoreNotes(const std::string& target, const RestoreNotes& notes) {
  std::vector<std::string> lines = {"id\t" + notes.id, "backup\t" + EscapeField(notes.backup)};
  for (const std::string& directory : notes.version_directories) {
    lines.push_back("tablespace\t" + EscapeField(directory));
  }
  if (!notes.wal_directory.empty()) lines.push_back("wal\t" + EscapeField(notes.wal_directory));
  return pg::WriteIncompleteSentinel(target, std::string(kTask), lines);
}

absl::StatusOr<std::string> ReadPlaceMarker(const std::string& place) {
  auto text = base::ReadFile(JoinPath(place, kPlaceMarker), kMarkerLimit);
  if (absl::IsNotFound(text.status())) return std::string();
  if (!text.ok()) return text.status();
  return WholeLine(*text);
}

absl::Status MakeMarkedDirectory(const std::string& place, const std::string& id) {
  const std::string parent = base::DirectoryOf(place);
  const std::string before = JoinPath(parent, PlaceMarkerBefore(id));
  METAL_RETURN_IF_ERROR(base::RemoveTree(before));
  if (mkdir(before.c_str(), 0700) != 0) return base::ErrnoStatus(errno, "create", before);
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(JoinPath(before, kPlaceMarker), id + "\n"));
  METAL_ASSIGN_OR_RETURN(const bool exists, base::Exists(place));
  // Not RenameNoReplace: some file systems have none for directories. rename(2) itself replaces an
  // empty directory only.
  if (exists) return AlreadyThere(place);
  if (rename(before.c_str(), place.c_str()) != 0) return base::ErrnoStatus(errno, "create", place);
  return base::SyncDirectory(parent);
}

absl::Status MarkDirectory(const std::string& place, const std::string& id) {
  const std::string before = JoinPath(place, PlaceMarkerBefore(id));
  METAL_RETURN_IF_ERROR(base::WriteFileDurably(before, id + "\n"));
  const absl::Status renamed = base::RenameNoReplace(before, JoinPath(place, kPlaceMarker));
  if (absl::IsAlreadyExists(renamed)) return AlreadyThere(place);
  METAL_RETURN_IF_ERROR(renamed);
  return base::SyncDirectory(place);
}

absl::Status RemoveMarkedDirectory(const std::string& place, const std::string& id) {
  if (id.empty()) return absl::OkStatus();
  const std::string parent = base::DirectoryOf(place);
  const std::string before = JoinPath(parent, PlaceMarkerBefore(id));
  METAL_RETURN_IF_ERROR(base::RemoveTree(before));
  METAL_ASSIGN_OR_RETURN(const std::string marker, ReadPlaceMarker(place));
  if (marker != id) return absl::OkStatus();
  // All of it at once, by a name that is ours: half of it without its mark would be nobody's.
  if (rename(place.c_str(), before.c_str()) != 0) return base::ErrnoStatus(errno, "remove", place);
  return base::RemoveTree(before);
}

absl::Status EmptyMarkedDirectory(const std::string& place, const std::string& id) {
  if (id.empty()) return absl::OkStatus();
  METAL_ASSIGN_OR_RETURN(const std::string marker, ReadPlaceMarker(place));
  auto names = base::ListDirectory(place);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (name == kPlaceMarker) continue;  // the last one
    if (marker != id && !name.starts_with(PlaceMarkerBefore(id))) continue;
    METAL_RETURN_IF_ERROR(base::RemoveTree(JoinPath(place, name)));
  }
  return marker == id ? UnmarkPlace(place) : absl::OkStatus();
}

absl::Status UnmarkPlace(const std::string& place) {
  const std::string path = JoinPath(place, kPlaceMarker);
  if (unlink(path.c_str()) == 0 || errno == ENOENT || errno == ENOTDIR) return absl::OkStatus();
  return base::ErrnoStatus(errno, "remove", path);
}

}  // namespace metal::backup
