#include "tools/metal-wal/transfer.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>
#include <vector>

#include "agent/backup/wal_protocol.h"
#include "tools/metal-wal/request.h"

namespace metal::wal {
namespace {

constexpr const char* kControlFile = "global/pg_control";
constexpr int kRetryMilliseconds = 200;
constexpr uint32_t kOldestControlVersion = 1300, kNewestControlVersion = 9999;

// Whether PostgreSQL, whose working directory this is, will promote itself when it is told that
// there is no more WAL. A standby goes on with streaming instead, and must not be stopped because
// an agent is away.
// What cannot be looked at is no standby: a server that stops can be started again, a recovery that
// ended early is final.
bool RecoversToAnEnd() {
  const bool recovers =
      access("recovery.signal", F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR);
  return recovers && access("standby.signal", F_OK) != 0;
}

ExitCode Report(const Options& options, const Answer& answer) {
  // A standby asks for the next file every few seconds: that it is not there yet is no news.
  if (answer.code != kDone && answer.code != kNotFound) {
    fprintf(stderr, "metal-wal: %s %s: %s\n",
            options.command == Options::Command::kPush ? "push" : "fetch",
            options.file_name.c_str(), answer.message.c_str());
  }
  return answer.code;
}

// The system identifier is the first field of pg_control and never changes, so a concurrent write
// does no harm.
uint64_t ReadSystemIdentifier() {
  const File control(open(kControlFile, O_RDONLY | O_CLOEXEC));
  struct {
    uint64_t system_identifier;
    uint32_t version;
  } start{};
  if (control.fd() < 0 || pread(control.fd(), &start, 12, 0) != 12) return 0;
  if (start.version < kOldestControlVersion || start.version > kNewestControlVersion) return 0;
  return start.system_identifier;
}

// An unnamed file in the directory of `path`; closed when the filesystem has none. PostgreSQL's
// umask decides about the group.
File Unnamed(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  return File(open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0640));
}

// Gives the unnamed file `fd` the name `path`, by way of `temporary` when `path` exists.
bool Publish(int fd, const std::string& temporary, const std::string& path) {
  const std::string source = "/proc/self/fd/" + std::to_string(fd);
  if (linkat(AT_FDCWD, source.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return true;
  if (errno != EEXIST) return false;
  unlink(temporary.c_str());
  return linkat(AT_FDCWD, source.c_str(), AT_FDCWD, temporary.c_str(), AT_SYMLINK_FOLLOW) == 0 &&
         rename(temporary.c_str(), path.c_str()) == 0;
}

bool IsSegment(const std::string& name) {
  return name.size() == 24 && name.find_first_not_of("0123456789ABCDEF") == std::string::npos;
}

// With files that have no name until they are complete: nothing is left when we are killed, and the
// agent may fill others ahead. `usable` becomes false when this filesystem or this process cannot
// do that.
Answer FetchUnnamed(const Options& options, const backup::WalRequest& request,
                    const std::string& temporary, time_t deadline, bool& usable) {
  std::vector<File> files;
  std::vector<int> descriptors;
  const size_t count = IsSegment(request.name) ? 1 + backup::kMaxWalSpares : 1;
  for (size_t i = 0; i < count; ++i) {
    files.push_back(Unnamed(options.path));
    if (files.back().fd() < 0) break;
    descriptors.push_back(files.back().fd());
  }
  usable = !descriptors.empty();
  if (!usable) return {};
  Answer answer = Ask(options, request, descriptors, deadline);
  if (answer.code != kDone) return answer;
  const int complete = answer.prefetched.fd() >= 0 ? answer.prefetched.fd() : descriptors.front();
  usable = Publish(complete, temporary, options.path);
  return answer;
}

Answer FetchNamed(const Options& options, const backup::WalRequest& request,
                  const std::string& temporary, time_t deadline) {
  File file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640));
  if (file.fd() < 0) return Errno(kFailed, "create", temporary, "");
  Answer answer = Ask(options, request, {file.fd()}, deadline);
  if (answer.code == kDone && !file.Close()) answer = Errno(kFailed, "close", temporary, "");
  if (answer.code == kDone && rename(temporary.c_str(), options.path.c_str()) != 0) {
    answer = Errno(kFailed, "rename to", options.path, "");
  }
  if (answer.code != kDone) unlink(temporary.c_str());
  return answer;
}

Answer FetchInto(const Options& options, const backup::WalRequest& request,
                 const std::string& temporary, time_t deadline) {
  bool usable = false;
  Answer answer = FetchUnnamed(options, request, temporary, deadline, usable);
  return usable ? std::move(answer) : FetchNamed(options, request, temporary, deadline);
}

}  // namespace

ExitCode Push(const Options& options) {
  backup::WalRequest request;
  request.operation = backup::WalOperation::kPush;
  request.name = options.file_name;
  request.system_identifier =
      options.system_identifier != 0 ? options.system_identifier : ReadSystemIdentifier();
  const File file(open(options.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd() < 0)
    return Report(options, Errno(kFailed, "open", options.path,
                                 ". HINT: give %p and run in the data directory"));
  return Report(options, Ask(options, request, {file.fd()}, Now() + options.timeout_seconds));
}

ExitCode Fetch(const Options& options) {
  const bool strict = options.strict || RecoversToAnEnd();
  const time_t deadline = Now() + options.timeout_seconds;
  backup::WalRequest request;
  request.operation = backup::WalOperation::kFetch;
  request.name = options.file_name;
  request.system_identifier =
      options.system_identifier != 0 ? options.system_identifier : ReadSystemIdentifier();
  Answer answer{
      kFailed,
      "cannot read global/pg_control here. HINT: run in the data directory or give --cluster"};
  if (request.system_identifier != 0) {
    const std::string temporary = options.path + ".metal-tmp";
    answer = FetchInto(options, request, temporary, deadline);
    while (strict && answer.code == kTryAgain && Now() < deadline) {
      poll(nullptr, 0, kRetryMilliseconds);
      answer = FetchInto(options, request, temporary, deadline);
    }
  }
  Report(options, answer);
  if (strict && answer.code != kDone && answer.code != kNotFound) return kStopRecovery;
  return answer.code;
}

}  // namespace metal::wal
