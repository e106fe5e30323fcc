#include "agent/base/privileges.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <vector>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/subprocess.h"

namespace metal::base {
namespace {

constexpr const char* kSelf = "/proc/self/exe";
constexpr mode_t kDirectoryMode = 0750;
constexpr const char* kOomScorePath = "/proc/self/oom_score_adj";

}  // namespace

absl::StatusOr<OsUser> FindOsUser(const std::string& name) {
  std::vector<char> buffer(16384);
  passwd entry{};
  passwd* found = nullptr;
  const int error = getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    if (error != 0) return ErrnoStatus(error, "look up user", name);
    return Error(
        absl::StatusCode::kNotFound,
        "no user '{}' on this host. HINT: set [agent] os_user to the user that runs PostgreSQL",
        name);
  }
  return OsUser{entry.pw_name, entry.pw_uid, entry.pw_gid};
}

std::string CurrentOsUser() {
  std::vector<char> buffer(16384);
  passwd entry{};
  passwd* found = nullptr;
  getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found);
  return found == nullptr ? std::to_string(geteuid()) : std::string(entry.pw_name);
}

absl::Status ProvideDirectory(const std::string& path, const OsUser& user, mode_t mode) {
  if (path.empty() || PathExists(path)) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(MakeDirectories(DirectoryOf(path), 0755));
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return ErrnoStatus(errno, "mkdir", path);
  if (::chown(path.c_str(), user.uid, user.gid) != 0) return ErrnoStatus(errno, "chown", path);
  return absl::OkStatus();
}

absl::Status ProvideDirectoryOnDisk(const std::string& path, const OsUser& user,
                                    absl::Duration patience) {
  SubprocessOptions look;
  look.argv = {kSelf, std::string(kProvideDirectory), path, std::to_string(user.uid),
               std::to_string(user.gid)};
  look.timeout = patience;
  look.kill_patience = absl::Seconds(1);
  const absl::StatusOr<SubprocessResult> looked = RunSubprocess(look);
  if (absl::IsDeadlineExceeded(looked.status())) {
    return Error(absl::StatusCode::kDeadlineExceeded,
                 "the disk of {} does not answer. HINT: is it a mount whose server is away?", path);
  }
  if (!looked.ok()) return looked.status();
  if (looked->ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(looked->exit_code), looked->LastLine());
}

int RunProvideDirectory(const std::string& path, std::string_view uid, std::string_view gid) {
  OsUser user;
  const auto read = [](std::string_view text, auto& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    return error == std::errc() && end == text.data() + text.size();
  };
  absl::Status provided = absl::InvalidArgumentError("user and group are numbers");
  if (read(uid, user.uid) && read(gid, user.gid))
    provided = ProvideDirectory(path, user, kDirectoryMode);
  if (!provided.ok()) {
    (void)WriteAll(STDERR_FILENO, std::string(provided.message()) + "\n", "standard error");
  }
  return static_cast<int>(provided.code());
}

absl::Status LowerOomScore(int score) {
  METAL_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(kOomScorePath, O_WRONLY));
  METAL_RETURN_IF_ERROR(WriteAll(fd.get(), std::to_string(score), kOomScorePath));
  return fd.Close();
}

absl::StatusOr<int> OomScore() {
  METAL_ASSIGN_OR_RETURN(const std::string text, ReadFile(kOomScorePath, 64));
  int score = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), score);
  if (error == std::errc()) return score;
  return Error(absl::StatusCode::kInternal, "{} says \"{}\"", kOomScorePath, text);
}

absl::Status BecomeUser(const OsUser& user) {
  if (user.uid == 0) {
    return Error(
        absl::StatusCode::kFailedPrecondition,
        "os_user '{}' is root: PostgreSQL refuses to run as root. HINT: os_user = \"postgres\"",
        user.name);
  }
  if (::initgroups(user.name.c_str(), user.gid) != 0)
    return ErrnoStatus(errno, "initgroups", user.name);
  if (::setgid(user.gid) != 0) return ErrnoStatus(errno, "setgid", user.name);
  if (::setuid(user.uid) != 0) return ErrnoStatus(errno, "setuid", user.name);
  // A process that changed its user is not dumpable: its own /proc entries would belong to root.
  if (::prctl(PR_SET_DUMPABLE, 1) != 0) return ErrnoStatus(errno, "prctl", "PR_SET_DUMPABLE");
  return absl::OkStatus();
}

}  // namespace metal::base
