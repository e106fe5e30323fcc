// The monitor's inside: what its five files share.
//   disk_monitor.cc    targets, and what others ask
//   disk_sharing.cc    one prober for all directories on a file system
//   disk_supervisor.cc the supervisor's thread: looks at clocks and counters, touches no disk
//   disk_inventory.cc  the inventory thread: slow sources, each with a deadline
//   disk_noted.cc      what is kept between two runs: drives, acknowledgements, what was learned
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/base/thread.h"
#include "agent/disk/detached_call.h"
#include "agent/disk/disk_monitor.h"
#include "agent/disk/disk_record.h"
#include "agent/disk/disk_report.h"
#include "agent/disk/faults/fault_desk.h"
#include "agent/disk/nvme/log_watch.h"
#include "agent/disk/sources/kernel_sources.h"
#include "agent/disk/sources/postgres_log_watch.h"
#include "agent/disk/space/space_watch.h"

namespace metal::disk {

// What only the filesystem itself can tell.
struct PathFacts {
  std::string real_path;  // empty: it could not be resolved
  std::optional<base::FilesystemRoom> room;
};

// A watched directory.
struct Target {
  Target(std::string directory_in, ProbeLimits limits)
      : directory(std::move(directory_in)), machine(limits) {}
  const std::string directory;
  std::shared_ptr<Prober> prober;  // null: probing is off
  bool borrowed = false;           // it is another target's, on the same file system
  ProbeStateMachine machine;
  absl::Time state_since = absl::InfinitePast();
  base::MonotonicTime state_since_monotonic;
  uint64_t errors_told = 0;           // of its prober
  std::optional<Evidence> handed_in;  // what its probes said of it last and did not withdraw
  // The inventory thread's findings.
  std::string real_path;
  std::optional<StorageStack> stack;
  std::optional<FilesystemSpace> space;
  std::optional<observe::SpaceSection> room;
  DetachedCall<PathFacts> path_call;  // used by the inventory thread alone
};

class DiskMonitor::Impl {
 public:
  Impl(DiskMonitorOptions options, observe::StatusBoard& board, observe::EventLog& events,
       PrivilegedHelper* helper, base::Clock& clock);
  ~Impl();

  // As those of DiskMonitor.
  void AddTarget(const std::string& role, const std::string& directory);
  void RemoveTarget(const std::string& role);
  void StopProbing(const std::string& role);
  std::vector<std::string> roles();
  absl::StatusOr<std::shared_ptr<Prober>> FindProber(const std::string& role);
  void SetPeers(const std::vector<PeerExcess>& peers);
  void Take(Evidence evidence);
  void NoteAction(const std::string& fault_class, const std::string& subject,
                  const std::string& text);
  absl::StatusOr<std::vector<observe::Fault>> Acknowledge(const AcknowledgeRequest& request);
  void NoteDrivesAnew();
  absl::Status CheckDrives(const std::string& data_directory);
  std::string DiskOf(const std::string& role);
  std::string DirectoryOf(const std::string& role);
  std::map<std::string, DriveReport> DriveReports() const { return drives_.Reports(); }

 private:
  std::shared_ptr<Prober> MakeProber(const std::string& role, const std::string& directory);
  // The same directory as it was found, without a prober, as if it had just been added.
  std::shared_ptr<Target> Unprobed(const Target& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  KernelSourcesOptions KernelOptions(PrivilegedHelper* helper);
  void TellRoles() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- disk_sharing.cc ----
  // Directories on one file system need one prober: the first role's, once both are healthy.
  void ShareProbers();
  // Before the target loses its prober: who borrowed it gets one of its own.
  void ReturnProber(const Target& lender) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- disk_supervisor.cc ----
  void Supervise();
  void Judge(const std::string& role, Target& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The state; what was handed in before and is another one is withdrawn.
  void HandIn(Target& target, std::optional<Evidence> evidence)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Errors since the last look. Of a prober that is borrowed its owner tells.
  void HandInErrors(const std::string& role, Target& target, uint64_t errors)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What others may have taken for over, and is not.
  void RepeatStates() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Each disk's last second, over all roles that lie on it.
  void ObserveSpeed(base::MonotonicTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  TargetView ViewOf(const std::string& role, Target& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(base::MonotonicTime now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // ---- disk_inventory.cc ----
  void TakeInventory();
  void ReadStacks();
  // Asks the file system for its room, and what the path leads to; false: it did not say.
  bool LookAtPath(Target& target);
  void ReadSpace();
  void LoadSpaceHistory();
  void SaveSpaceHistory();
  // Tells the sources and the desk which disks there are.
  void TellOfDisks();
  void ReadDrives();

  // ---- disk_noted.cc ----
  // Reads the record, once its disk answers.
  void LoadRecord();
  // What the slow detectors learned is read, once its disk answers, and then written now and then.
  void KeepLearned();
  void LoadLearned();
  // Notes the drives of roles that have none noted.
  void NoteDrives();
  void NoteDrivesOf(const std::string& role, const Target& target)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of each disk, by kernel name, which one should be there; a disk of several roles is held
  // against the one whose note it is not.
  std::map<std::string, DriveIdentity> ExpectedDrives() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Stores what has changed since it was last stored.
  absl::Status SaveRecord(absl::Duration patience);

  DiskMonitorOptions options_;
  observe::StatusBoard& board_;
  observe::EventLog& events_;
  base::Clock& clock_;
  FaultDesk desk_;
  const EvidenceSink sink_ = [this](Evidence evidence) { desk_.Take(std::move(evidence)); };
  LogWatch drives_;
  KernelSources kernel_;
  SlowWatch slow_{sink_};
  std::unique_ptr<PostgresLogWatch> postgres_log_;  // null: no log is followed
  SpaceWatch space_;                                // of the inventory thread
  DetachedCall<absl::Status> space_save_;           // of the inventory thread
  // Of the inventory thread: what was learned of drives is not written before it was read.
  DetachedCall<absl::StatusOr<std::string>> learned_load_;
  DetachedCall<absl::Status> learned_save_;
  std::optional<base::MonotonicTime> learned_kept_;
  bool learned_lost_told_ = false;

  RecordFile record_file_;
  DetachedCalls check_calls_{1};  // CheckDrives: its paths may hang

  base::Mutex mutex_;  // never held while something may hang
  base::CondVar changed_;
  std::map<std::string, std::shared_ptr<Target>> targets_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, NotedDrives> noted_ ABSL_GUARDED_BY(mutex_);  // by role
  std::set<std::string> note_anew_ ABSL_GUARDED_BY(mutex_);           // roles
  bool record_loaded_ ABSL_GUARDED_BY(mutex_) = false;
  DiskRecord stored_ ABSL_GUARDED_BY(mutex_);  // as the file has it
  uint64_t record_version_ ABSL_GUARDED_BY(mutex_) = 0;
  bool publish_ ABSL_GUARDED_BY(mutex_) = true;
  bool inventory_due_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;

  base::Thread supervisor_;  // last: they use everything above
  base::Thread inventory_;
};

}  // namespace metal::disk
