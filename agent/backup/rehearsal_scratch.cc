#include "agent/backup/rehearsal_scratch.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>

#include "agent/backup/restore_notes.h"
#include "agent/backup/text_fields.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/proc.h"
#include "agent/base/status.h"
#include "agent/pg/process.h"

namespace metal::backup {
namespace {

using base::JoinPath;

constexpr std::string_view kNotePrefix = "rehearsal_scratch.";  // in the state directory
constexpr std::string_view kRootPrefix = "rehearsal-";
constexpr std::string_view kSocketPrefix = "/tmp/metal-rehearsal-";
constexpr size_t kNoteLimit = 64 << 10;
constexpr absl::Duration kStopPatience = absl::Seconds(10);
constexpr absl::Duration kChildrenPatience = absl::Seconds(10);
constexpr absl::Duration kPoll = absl::Milliseconds(20);

absl::Status WriteNote(const RehearsalScratch& scratch) {
  return base::WriteFileDurably(
      scratch.note,
      fmt::format("root\t{}\nsocket\t{}\nserver\t{}\t{}\n", EscapeField(scratch.root),
                  EscapeField(scratch.socket), scratch.server_pid, scratch.server_start_ticks));
}

absl::StatusOr<RehearsalScratch> ReadNote(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, kNoteLimit));
  RehearsalScratch scratch;
  scratch.note = path;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    std::string_view fields[3];
    const size_t count = SplitFields(rest.substr(0, end), fields);
    if (count == 2) {
      const std::string value = UnescapeField(fields[1]).value_or("");
      if (fields[0] == "root") scratch.root = value;
      if (fields[0] == "socket") scratch.socket = value;
    } else if (count == 3 && fields[0] == "server" &&
               (!ParseField(fields[1], scratch.server_pid) ||
                !ParseField(fields[2], scratch.server_start_ticks))) {
      scratch.server_pid = 0;
    }
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  const size_t slash = scratch.root.rfind('/');
  // Never remove what does not look like ours.
  if (slash == std::string::npos || scratch.root[0] != '/' ||
      !std::string_view(scratch.root).substr(slash + 1).starts_with(kRootPrefix) ||
      !scratch.socket.starts_with(kSocketPrefix) ||
      scratch.socket.find('/', kSocketPrefix.size()) != std::string::npos) {
    return base::Error(absl::StatusCode::kDataLoss, "{} is no note of a rehearsal", path);
  }
  return scratch;
}

std::string RealPath(const std::string& path) {
  char buffer[PATH_MAX];
  return realpath(path.c_str(), buffer) != nullptr ? buffer : "";
}

// The noted process, if it still is the one: the pidfd is opened first, so what is asked about
// afterwards cannot be another one's answer while it lives.
std::shared_ptr<const pg::Postmaster> NotedServer(const RehearsalScratch& scratch) {
  if (scratch.server_pid <= 0 || scratch.server_start_ticks == 0) return nullptr;
  const auto process = pg::Postmaster::Open(scratch.server_pid);
  if (!process.ok()) return nullptr;
  const auto stat = base::ReadProcStat(scratch.server_pid);
  if (!stat.ok() || stat->start_ticks != scratch.server_start_ticks) return nullptr;
  // Ticks count from the boot: after another one they may name anybody.
  const auto directory = base::ProcessCwd(scratch.server_pid);
  if (!directory || (*directory != scratch.data() && *directory != RealPath(scratch.data()))) {
    return nullptr;
  }
  return *process;
}

absl::Status EndServer(const RehearsalScratch& scratch, const std::string& bin_dir,
                       base::Clock& clock, const std::function<bool()>& stop_waiting) {
  const pg::PostmasterPlace place{scratch.data(), bin_dir};
  std::shared_ptr<const pg::Postmaster> server = NotedServer(scratch);
  if (server == nullptr) {
    // The agent died between the launch and the note.
    const auto found = pg::FindPostmaster(place);
    if (found.ok() && *found) server = (*found)->process;
  }
  if (server != nullptr && server->alive()) {
    pg::StopOptions stop;
    stop.mode = pg::StopMode::kImmediate;
    stop.timeout = kStopPatience;
    stop.escalate_to = pg::StopMode::kKill;
    stop.cancelled = stop_waiting;
    METAL_RETURN_IF_ERROR(pg::StopPostmaster(*server, place, stop, clock).status());
  }
  // The children of a killed postmaster end by themselves, soon.
  const base::MonotonicTime deadline = clock.Monotonic() + kChildrenPatience;
  while (true) {
    const std::vector<pid_t> children = pg::ListServerProcesses(place);
    if (children.empty()) return absl::OkStatus();
    if (stop_waiting && stop_waiting()) return absl::CancelledError("the agent ends");
    if (clock.Monotonic() >= deadline) {
      return base::Error(absl::StatusCode::kDeadlineExceeded,
                         "process {} still works in {}. HINT: end it; the agent's next start "
                         "removes the directory",
                         children.front(), scratch.data());
    }
    clock.Sleep(kPoll);
  }
}

}  // namespace

absl::StatusOr<RehearsalScratch> MakeRehearsalScratch(const std::string& state_dir,
                                                      const std::string& parent,
                                                      const std::string& label) {
  METAL_ASSIGN_OR_RETURN(const std::string id, NewRestoreId());
  RehearsalScratch scratch;
  scratch.note = JoinPath(state_dir, fmt::format("{}{}", kNotePrefix, id));
  scratch.root = JoinPath(parent, fmt::format("{}{}-{}", kRootPrefix, label, id.substr(0, 8)));
  scratch.socket = fmt::format("{}{}", kSocketPrefix, id.substr(0, 16));
  METAL_RETURN_IF_ERROR(WriteNote(scratch));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(parent, 0700));
  for (const std::string& path : {scratch.root, scratch.socket}) {
    if (mkdir(path.c_str(), 0700) == 0) continue;
    const int error = errno;
    if (path == scratch.socket) (void)rmdir(scratch.root.c_str());
    (void)unlink(scratch.note.c_str());
    return base::ErrnoStatus(error, "create directory", path);
  }
  return scratch;
}

absl::Status NoteRehearsalServer(RehearsalScratch& scratch, pid_t pid) {
  METAL_ASSIGN_OR_RETURN(const base::ProcStat stat, base::ReadProcStat(pid));
  scratch.server_pid = pid;
  scratch.server_start_ticks = stat.start_ticks;
  return WriteNote(scratch);
}

absl::Status RemoveRehearsalScratch(const RehearsalScratch& scratch, const std::string& bin_dir,
                                    base::Clock& clock, const std::function<bool()>& stop) {
  METAL_RETURN_IF_ERROR(
      base::Annotate(EndServer(scratch, bin_dir, clock, stop), "end the server of a rehearsal"));
  METAL_RETURN_IF_ERROR(base::RemoveTree(scratch.socket));
  METAL_RETURN_IF_ERROR(base::RemoveTree(scratch.root, stop));
  return base::RemoveTree(scratch.note);
}

std::vector<RehearsalScratch> FindLeftRehearsals(const std::string& state_dir) {
  std::vector<RehearsalScratch> left;
  const auto names = base::ListDirectory(state_dir);
  if (!names.ok()) {
    base::LogWarning("rehearsal.notes_unreadable: {}", std::string(names.status().message()));
    return left;
  }
  for (const std::string& name : *names) {
    if (!name.starts_with(kNotePrefix)) continue;
    const std::string path = JoinPath(state_dir, name);
    if (name.find('.', kNotePrefix.size()) != std::string::npos) {
      // Cut off while it was written: nothing had been made yet.
      if (const absl::Status removed = base::RemoveTree(path); !removed.ok()) {
        base::LogWarning("rehearsal: {}", std::string(removed.message()));
      }
      continue;
    }
    auto scratch = ReadNote(path);
    if (scratch.ok()) {
      left.push_back(*std::move(scratch));
    } else {
      base::LogWarning("rehearsal.note_unreadable: {}", std::string(scratch.status().message()));
    }
  }
  return left;
}

}  // namespace metal::backup
