#include "agent/backup/restore_places.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

using DirectoryId = std::pair<dev_t, ino_t>;

struct ResolvedPlace {
  std::string path;  // without links, also when it does not exist yet
  bool exists = false;
  std::vector<DirectoryId> lineage;  // of what exists: itself or the nearest parent, up to the root
};

enum class Relation { kApart, kSame, kInside };

// Without "//", "/./" and a slash at the end; the file system is not asked.
std::string Normal(const std::string& path) {
  std::string normal = std::filesystem::path(path).lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

absl::StatusOr<ResolvedPlace> Resolve(const std::string& path) {
  const std::string normal = Normal(path);
  METAL_ASSIGN_OR_RETURN(const std::string ancestor, ExistingAncestor(normal));
  char real[PATH_MAX];
  if (realpath(ancestor.c_str(), real) == nullptr) {
    return base::ErrnoStatus(errno, "resolve", ancestor);
  }
  ResolvedPlace place;
  place.exists = ancestor == normal;
  const std::string rest = normal.substr(ancestor.size());
  place.path = Normal(real + ("/" + rest));
  for (std::string parent = real;; parent = base::DirectoryOf(parent)) {
    struct stat status {};
    if (stat(parent.c_str(), &status) != 0) return base::ErrnoStatus(errno, "stat", parent);
    place.lineage.emplace_back(status.st_dev, status.st_ino);
    if (parent.size() <= 1) return place;
  }
}

// A place that is only looked at to be kept out of. One on a disk that fails is known by its text:
// it must not keep a restore from going elsewhere.
absl::StatusOr<ResolvedPlace> ResolveKnown(const std::string& path) {
  auto place = Resolve(path);
  if (!absl::IsDataLoss(place.status())) return place;
  ResolvedPlace lexical;
  lexical.path = Normal(path);
  return lexical;
}

// Where `a` lies as seen from `b`.
Relation RelationOf(const ResolvedPlace& a, const ResolvedPlace& b) {
  if (a.path == b.path) return Relation::kSame;
  if (a.exists && b.exists && a.lineage.front() == b.lineage.front()) return Relation::kSame;
  if (a.path.starts_with(b.path == "/" ? b.path : b.path + "/")) return Relation::kInside;
  const bool below = b.exists && std::find(a.lineage.begin(), a.lineage.end(), b.lineage.front()) !=
                                     a.lineage.end();
  return below ? Relation::kInside : Relation::kApart;
}

absl::Status CheckPair(const std::string& target, const RestorePlace& a, const ResolvedPlace& at_a,
                       const RestorePlace& b, const ResolvedPlace& at_b) {
  constexpr std::string_view kHint =
      "HINT: give each of them a directory of its own, outside of the repository and of any data "
      "directory";
  const auto refuse = [&](const RestorePlace& inner, std::string_view how,
                          const RestorePlace& outer) {
    return RestoreTargetError(target, fmt::format("cannot be used: {} {} {} {} {}. {}", inner.what,
                                                  inner.path, how, outer.what, outer.path, kHint));
  };
  switch (RelationOf(at_a, at_b)) {
    case Relation::kSame:
      return refuse(a, "is the same directory as", b);
    case Relation::kInside:
      return refuse(a, "lies inside", b);
    case Relation::kApart:
      break;
  }
  if (RelationOf(at_b, at_a) == Relation::kInside) return refuse(b, "lies inside", a);
  return absl::OkStatus();
}

}  // namespace

absl::Status RestoreTargetError(const std::string& target, std::string_view why) {
  return base::WithReason(
      absl::FailedPreconditionError(fmt::format("restore target {} {}", target, why)),
      {"RESTORE_TARGET", {{"target_directory", target}}});
}

bool LeadsUp(const std::string& path) {
  const std::filesystem::path parts(path);
  return std::find(parts.begin(), parts.end(), "..") != parts.end();
}

absl::StatusOr<std::string> ExistingAncestor(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  while (path.size() > 1) {
    struct stat status {};
    if (stat(path.c_str(), &status) == 0) return path;
    if (errno != ENOENT && errno != ENOTDIR) return base::ErrnoStatus(errno, "stat", path);
    path = base::DirectoryOf(path);
  }
  return path;
}

absl::StatusOr<bool> IsSamePlace(const std::string& path, const std::string& other) {
  METAL_ASSIGN_OR_RETURN(const ResolvedPlace here, Resolve(path));
  METAL_ASSIGN_OR_RETURN(const ResolvedPlace there, ResolveKnown(other));
  return RelationOf(here, there) == Relation::kSame;
}

absl::Status CheckPlacesApart(const std::string& target, const std::vector<RestorePlace>& written,
                              const std::vector<RestorePlace>& kept_out) {
  std::vector<std::pair<const RestorePlace*, ResolvedPlace>> places;
  for (const auto* list : {&written, &kept_out}) {
    for (const RestorePlace& place : *list) {
      if (place.path.empty()) continue;
      const bool is_written = list == &written;
      METAL_ASSIGN_OR_RETURN(ResolvedPlace resolved,
                             is_written ? Resolve(place.path) : ResolveKnown(place.path));
      for (const auto& [earlier, at] : places) {
        METAL_RETURN_IF_ERROR(CheckPair(target, place, resolved, *earlier, at));
      }
      // Those to keep out of may lie inside each other.
      if (is_written) places.emplace_back(&place, std::move(resolved));
    }
  }
  return absl::OkStatus();
}

}  // namespace metal::backup
