// What a restore writes down before it fills directories, so that what it leaves when it dies can
// be removed without touching anybody else's: the sentinel in the target names the restore's id and
// the places outside of the target, and each of these places carries a marker file with the same
// id. Only a place whose marker has the id of the target's sentinel may be emptied: a sentinel
// grows stale when a place is emptied by hand and given to another cluster, a marker goes with its
// place. Threading: one thread for each target.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace metal::backup {

struct RestoreNotes {
  std::string id;      // of one run; empty: an old sentinel, whose outer places are left alone
  std::string backup;  // label, for people
  std::vector<std::string> version_directories;  // <location of a tablespace>/PG_…
  std::string wal_directory;                     // empty: inside the target
};

// 32 hexadecimal digits, never the same twice.
absl::StatusOr<std::string> NewRestoreId();

// nullopt: the target has no sentinel, or that of another task than a restore.
absl::StatusOr<std::optional<RestoreNotes>> ReadRestoreNotes(const std::string& target);
// Durable when it returns OK.
absl::Status WriteRestoreNotes(const std::string& target, const RestoreNotes& notes);

// Name of the marker in a place outside of the target.
inline constexpr std::string_view kPlaceMarker = "metal.restoring";
// Start of the names of what is being marked or removed: <kPlaceMarker>.<id>.
std::string PlaceMarkerBefore(const std::string& id);

// Id of the restore that marked the place; empty: not marked, or there is no such directory.
absl::StatusOr<std::string> ReadPlaceMarker(const std::string& place);
// Makes a directory that must not exist; it appears together with its marker, so an unmarked one is
// never ours. Durable. ALREADY_EXISTS.
absl::Status MakeMarkedDirectory(const std::string& place, const std::string& id);
// Marks an existing directory, durably. ALREADY_EXISTS when another restore has marked it.
absl::Status MarkDirectory(const std::string& place, const std::string& id);
absl::Status UnmarkPlace(const std::string& place);
// Both remove only what carries the mark of this id, so that an end in between can be taken up
// again; anything else is left alone, which is OK. An empty id marks nothing.
absl::Status RemoveMarkedDirectory(const std::string& place, const std::string& id);
absl::Status EmptyMarkedDirectory(const std::string& place, const std::string& id);

}  // namespace metal::backup
