// Watches the disks under this node's directories: identity, SMART, probes; publishes them and
// raises faults and events.
// Threads: one prober per file system (may hang with its device; each directory has its own until
// it is known to lie on another's), one supervisor (200 ms tick, judges
// deadlines, touches no disk), one inventory thread (sysfs, free space, SMART; slow things with
// deadlines). The status path reads the StatusBoard alone.
// Faults: the classes of the fault table (faults/fault_table.h), weighed by the fault desk from
// what probes, drives' logs, the kernel, file systems and PostgreSQL's log say. Events:
// disk.stalled, disk.slow, disk.faulted, disk.recovered, disk.unknown, disk.unsupported of the
// probes, subject "<disk>:<role>"; those of the fault desk (faults/fault_desk.h), of the sources
// (disk.kernel_line, disk.postgres_line) and of the space watch (space/space_judge.h);
// disk.drive_noted, subject the role, when another drive takes the place of the noted one;
// disk.record_lost and disk.learned_lost when what an earlier agent kept cannot be read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/faults/fault_desk.h"
#include "agent/disk/faults/reaction_policy.h"
#include "agent/disk/inventory.h"
#include "agent/disk/nvme/drive_counters.h"
#include "agent/disk/nvme/log_watch.h"
#include "agent/disk/privileged.h"
#include "agent/disk/probe_state.h"
#include "agent/disk/prober.h"
#include "agent/disk/slow/slow_watch.h"
#include "agent/disk/sources/line_repeats.h"
#include "agent/disk/sources/privileged_filesystem.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"

namespace metal::disk {

// How long probes of a role's file system took during the last second; roles on one file system
// share them, and the first by name gets them. Called on the supervisor's thread: must not wait.
using ProbeLatencySink =
    std::function<void(const std::string& role, std::span<const absl::Duration> latencies)>;

struct DiskMonitorOptions {
  SysRoots roots;
  std::string node_id;  // stamped into the written probes
  // What is kept between two runs (disk_record.h); empty: nothing.
  std::string record_path;
  bool probe_enabled = true;
  ProbeSchedule schedule;  // config probe_read_interval, probe_write_interval
  ProbeLimits limits;      // config probe_stall_after
  absl::Duration tick = absl::Milliseconds(200);
  absl::Duration publish_interval = absl::Seconds(2);  // besides every change of a probe's state
  absl::Duration inventory_interval = absl::Seconds(30);
  absl::Duration smart_interval = absl::Seconds(10);
  absl::Duration space_interval = absl::Seconds(2);
  int read_only_at = 0;       // config disk.read_only_at
  std::string space_history;  // the file that keeps it; empty: it begins anew with each monitor
  // What the slow detectors learned of the drives (slow/learned_drive.h); empty: nothing is kept.
  std::string learned_path;
  absl::Duration learned_interval = absl::Minutes(5);  // between two writes
  std::optional<XfsRetryLimits> xfs_retries;           // nullopt: XFS keeps its settings
  std::string postgres_log;  // the file that PostgreSQL logs to; empty: none
  // config disk.reaction, disk.reactions
  ReactionPolicy reactions{.strongest = Reaction::kDrain};
  // Is told what drives' counters did (nvme/drive_counters.h); may be null.
  CounterSink counters = nullptr;
  // Is told of lines of the kernel's log that no event tells (sources/kernel_log.h); may be null.
  KernelLineSink kernel_lines = nullptr;
  ProbeLatencySink probe_latencies = nullptr;  // may be null
  bool unlisted_logs = false;                  // config disk.unlisted_logs
  // Makes the device of a probe file; tests give one that fails on command. Null:
  // MakeFileProbeDevice.
  std::function<std::unique_ptr<ProbeDevice>(const std::string& path)> make_device;
};

// Threading: thread-safe; no call here waits for a disk. `board`, `events` and `helper` outlive the
// monitor; `clock` outlives the process (a prober that hangs is left behind and still uses it).
class DiskMonitor {
 public:
  // `helper` may be null: no drive is asked for its logs then.
  DiskMonitor(DiskMonitorOptions options, observe::StatusBoard& board, observe::EventLog& events,
              PrivilegedHelper* helper, base::Clock& clock);
  // Ends within 1 s: what hangs in a device is left behind, with its memory, until the device
  // answers.
  ~DiskMonitor();
  DiskMonitor(const DiskMonitor&) = delete;
  DiskMonitor& operator=(const DiskMonitor&) = delete;

  // Starts to watch the directory under the role's name: "data", "wal", "tablespace:16385",
  // "repository". The probe file is <directory>/.metal-probe (16 MiB; whoever copies the directory
  // must leave it out). Same role and path: no-op; same role, another path: replaced. A directory
  // that is not there (yet) is retried every 10 s and reported as unknown. Directories on the same
  // file system share one prober and its file, once their probes come back.
  void AddTarget(const std::string& role, const std::string& directory);
  // Stops watching; takes up to 500 ms when the device hangs. Clears the role's faults. Unknown
  // role: no-op. The probe file stays. Call it before the directory is removed, replaced or
  // unmounted.
  void RemoveTarget(const std::string& role);
  // Makes no probes there until the next AddTarget, while the disk stays in view, with its SMART
  // and its faults: for a directory that must stay empty, or is being filled. Otherwise as
  // RemoveTarget.
  void StopProbing(const std::string& role);
  std::vector<std::string> roles() const;

  // The role's prober, for one-shot measurements. NOT_FOUND names the roles there are.
  // FAILED_PRECONDITION when probing is switched off.
  absl::StatusOr<std::shared_ptr<Prober>> FindProber(const std::string& role) const;
  // What other sources saw (page checksums, …).
  void Take(Evidence evidence);
  // What was done about a fault that is shown; of one that is over: no-op.
  void NoteAction(const std::string& fault_class, const std::string& subject,
                  const std::string& text);
  // Takes faults for known (faults/acknowledgement.h); OK: it is stored. Waits for the state
  // directory's disk, 5 s at most, and changes nothing when that does not answer. A drive that is
  // another than noted is the noted one from then on.
  absl::StatusOr<std::vector<observe::Fault>> Acknowledge(const AcknowledgeRequest& request);
  // The database was made anew on purpose: the drives that its directories then lie on are to be
  // noted, whichever were there before.
  void NoteDrivesAnew();
  // Whether data and WAL of the database in `data_directory` lie, as far as that was noted, on a
  // drive that was noted with them; FAILED_PRECONDITION with reason WRONG_DEVICE names what does
  // not. What is not known, or not within 2 s, is no difference.
  absl::Status CheckDrives(const std::string& data_directory) const;
  // What the shard's other members told of their disks; counts for 10 s.
  void SetPeers(const std::vector<PeerExcess>& peers);
  // Kernel name of the disk under a role; empty while unknown.
  std::string DiskOf(const std::string& role) const;
  // The watched directory of a role; empty when there is none.
  std::string DirectoryOf(const std::string& role) const;
  // What the disks say of themselves, by kernel name, as last read. Does not block.
  std::map<std::string, DriveReport> DriveReports() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Name of the probe file inside a watched directory: backups and restores leave it out.
inline constexpr char kProbeFileName[] = ".metal-probe";

}  // namespace metal::disk
