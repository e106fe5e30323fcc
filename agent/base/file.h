// Small files and directories, with the durability that each call promises. Not for bulk data: see
// agent/uring. Threading: any thread. Blocks on the disk: never call on the status path.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"

namespace metal::base {

// open(2) with O_CLOEXEC added; EINTR is retried. Error: ErrnoStatus(errno, "open", path).
absl::StatusOr<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode = 0600);

// The whole file; OUT_OF_RANGE when it is longer than `limit` bytes. Works for /proc and /sys
// files.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t limit = 16 << 20);

// Replaces `path` so that after a crash it holds either the old or the new bytes, and the new ones
// once this returned OK: temporary file in the same directory, fsync, rename, fsync of the
// directory.
absl::Status WriteFileDurably(const std::string& path, std::string_view contents,
                              mode_t mode = 0600);

// Writes all of `data` at the current offset; handles short writes and EINTR.
absl::Status WriteAll(int fd, std::string_view data, std::string_view path);

// fsync of a directory / of any path's file.
absl::Status SyncDirectory(const std::string& path);

// mkdir -p; existing directories are fine; new ones get `mode` and their parents are fsynced.
absl::Status MakeDirectories(const std::string& path, mode_t mode = 0700);

// Names in a directory without "." and "..", sorted.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);

// Removes a file or a whole tree without following symbolic links. NOT_FOUND is OK. CANCELLED, with
// a part of it left, once `stop` says true before an entry.
absl::Status RemoveTree(const std::string& path, const std::function<bool()>& stop = {});

// Whether `path` names something; a symbolic link is not followed. False only for ENOENT and
// ENOTDIR: whoever cannot look has not seen that nothing is there. Any other failure of lstat(2) is
// ErrnoStatus(errno, "look for", path). Use this wherever absence leads to a decision.
absl::StatusOr<bool> Exists(const std::string& path);
// lstat succeeds; for choices that harm nobody when they are wrong.
bool PathExists(const std::string& path);

// rename(2) that never replaces `to`: ALREADY_EXISTS. Atomic; where the filesystem has no
// RENAME_NOREPLACE it links and then unlinks `from`, so a crash between may leave both names. Not
// durable before SyncDirectory.
absl::Status RenameNoReplace(const std::string& from, const std::string& to);

std::string JoinPath(std::string_view directory, std::string_view name);
// Directory part; "." when there is none.
std::string DirectoryOf(std::string_view path);

}  // namespace metal::base
