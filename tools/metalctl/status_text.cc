#include "absl/time/time.h"
#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/progress.h"
#include "tools/metalctl/terminal.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

std::string RoleWord(v1::Role role) {
  const std::string word = EnumWord(v1::Role_Name(role), "ROLE_");
  return word == "unknown" ? "none" : word;
}

// " (seen 12.0 s ago)" when a section is older than 5 s.
std::string Staleness(bool observed, const google::protobuf::Duration& age) {
  if (!observed) return " (not seen yet)";
  if (ToSeconds(age) < 5) return "";
  return fmt::format(" (seen {} ago)", FormatDuration(age));
}

Tone ToneOf(v1::PostgresState state) {
  switch (state) {
    case v1::POSTGRES_STATE_RUNNING:
      return Tone::kGood;
    case v1::POSTGRES_STATE_UNRESPONSIVE:
    case v1::POSTGRES_STATE_CRASHED:
    case v1::POSTGRES_STATE_QUARANTINED:
      return Tone::kBad;
    case v1::POSTGRES_STATE_STARTING:
    case v1::POSTGRES_STATE_STOPPING:
    case v1::POSTGRES_STATE_STOPPED:
      return Tone::kCaution;
    default:
      return Tone::kPlain;
  }
}

Tone ToneOf(v1::ProbeState state) {
  if (state == v1::PROBE_STATE_HEALTHY) return Tone::kGood;
  if (state == v1::PROBE_STATE_SLOW) return Tone::kCaution;
  const bool bad = state == v1::PROBE_STATE_STALLED || state == v1::PROBE_STATE_FAULTED;
  return bad ? Tone::kBad : Tone::kPlain;
}

// One status being written.
class Writer {
 public:
  Writer(const v1::NodeStatus& status, const TextOptions& options)
      : status_(status), options_(options) {}

  std::string Write() {
    AddNode();
    AddPostgres();
    AddStandby();
    AddGate();
    AddArchive();
    AddOperation();
    AddRepository();
    facts_.Add("pressure", PressureText(status_.pressure()));
    return Faults() + facts_.ToString() + Followers() + Disks() + Backups();
  }

 private:
  std::string Colored(std::string_view text, Tone tone) const {
    return Paint(text, tone, options_.colors);
  }
  // "3h02m ago", by the node's own clock.
  std::string Ago(const google::protobuf::Timestamp& time) const {
    return FormatAge(time, status_.capture_time()) + " ago";
  }

  void AddNode() {
    const auto& node = status_.node();
    facts_.Add("node",
               fmt::format("{} of {} on {}", node.node_id(), node.cluster_id(), node.hostname()));
    facts_.Add("as of", FormatTime(status_.capture_time()));
    facts_.Add("agent", fmt::format("{}, up {}, runs as {}, {} I/O", node.agent_version(),
                                    FormatAge(node.agent_start_time(), status_.capture_time()),
                                    node.os_user(), node.io_engine()));
    facts_.Add("term", node.term() == 0 ? "none yet"
                                        : fmt::format("{}, held by {}, wants the role {}",
                                                      node.term(), node.term_orchestrator_id(),
                                                      RoleWord(node.role_wanted())));
    if (node.has_lease()) {
      const auto& lease = node.lease();
      facts_.Add("lease",
                 lease.expired()
                     ? Colored(fmt::format("of term {} ran out: no primary before a higher term",
                                           lease.term()),
                               Tone::kBad)
                     : fmt::format("of term {}, {} left of {}", lease.term(),
                                   FormatDuration(lease.remaining()), FormatDuration(lease.ttl())));
    }
    if (node.fenced()) {
      facts_.Add("FENCED",
                 Colored(fmt::format("in term {}: {}", node.fence_term(), node.fence_reason()),
                         Tone::kBad));
    }
  }

  void AddPostgres() {
    const auto& postgres = status_.postgres();
    std::string state =
        Colored(EnumWord(v1::PostgresState_Name(postgres.state()), "POSTGRES_STATE_"),
                ToneOf(postgres.state()));
    if (!postgres.state_reason().empty()) state += ": " + postgres.state_reason();
    facts_.Add("PostgreSQL",
               fmt::format("{}{}{}{}", postgres.version(), postgres.version().empty() ? "" : " ",
                           state, Staleness(postgres.has_observe_age(), postgres.observe_age())));
    facts_.Add("  data", postgres.data_directory());
    facts_.Add("  start", postgres.start_progress());
    if (postgres.pid() == 0) return;
    facts_.Add("  process", fmt::format("pid {}, port {}, socket in {}, up {}", postgres.pid(),
                                        postgres.port(), postgres.socket_directory(),
                                        FormatAge(postgres.start_time(), status_.capture_time())));
    if (postgres.max_connections() == 0) return;  // nothing was asked of it yet
    const std::string role = postgres.role_observed() == v1::ROLE_UNSPECIFIED
                                 ? "not seen yet"
                                 : RoleWord(postgres.role_observed());
    facts_.Add("  role", fmt::format("{}, timeline {}", role, postgres.timeline()));
    AddRoom();
    if (!postgres.in_recovery() && postgres.current_lsn() != 0) {
      facts_.Add("  WAL", fmt::format("{} written, {} flushed", FormatLsn(postgres.current_lsn()),
                                      FormatLsn(postgres.flush_lsn())));
    }
    facts_.Add("  clients",
               fmt::format("{} of {}", postgres.connections(), postgres.max_connections()));
    std::string checksums = postgres.data_checksums() ? "on" : "off";
    if (postgres.checksum_failures() > 0) {
      checksums += Colored(fmt::format(", {} failures", postgres.checksum_failures()), Tone::kBad);
    }
    facts_.Add("  checksums", checksums);
    if (postgres.settings_pending_restart()) {
      facts_.Add("  settings", Colored("some wait for a restart", Tone::kCaution) +
                                   ": metalctl pg config get --effective");
    }
  }

  void AddRoom() {
    const v1::RoomStatus& room = status_.room();
    if (room.read_only()) {
      facts_.Add("  read-only", Colored(room.read_only_reason(), Tone::kBad));
    }
    for (const v1::SpaceReserve& reserve : room.reserves()) {
      const std::string kept = reserve.size_bytes() > 0
                                   ? FormatBytes(reserve.size_bytes()) + " in " + reserve.path()
                                   : Colored("none: " + reserve.reason(), Tone::kCaution);
      facts_.Add("  reserve " + reserve.role(), kept);
    }
  }

  void AddStandby() {
    if (!status_.has_standby()) return;
    const auto& standby = status_.standby();
    const std::string receiver = standby.receiver_state().empty()
                                     ? Colored("no receiver", Tone::kCaution)
                                     : fmt::format("{} from {}:{}", standby.receiver_state(),
                                                   standby.sender_host(), standby.sender_port());
    facts_.Add("standby", receiver + Staleness(standby.has_observe_age(), standby.observe_age()));
    facts_.Add("  WAL", fmt::format("{} flushed, {} replayed", FormatLsn(standby.flushed_lsn()),
                                    FormatLsn(standby.replayed_lsn())));
    std::string source = standby.lag_source();
    std::replace(source.begin(), source.end(), '_', ' ');
    facts_.Add(
        "  lag",
        fmt::format("{}, {} ({})",
                    standby.has_lag_bytes() ? FormatBytes(standby.lag_bytes()) : "unknown bytes",
                    standby.has_lag() ? FormatDuration(standby.lag()) : "unknown time", source));
    if (standby.replay_paused()) {
      facts_.Add("  replay", Colored(standby.pause_state(), Tone::kCaution));
    }
  }

  void AddGate() {
    const auto& gate = status_.gate();
    if (!gate.has_observe_age()) return;  // off, or not looked at yet
    facts_.Add("gate", GateLine(gate, status_.capture_time(), options_.colors) +
                           Staleness(true, gate.observe_age()));
    if (gate.has_read_only())
      facts_.Add("  readers", ReadOnlyDoorLine(gate.read_only(), options_.colors));
  }

  void AddArchive() {
    const auto& archive = status_.archive();
    const std::string stale = Staleness(archive.has_observe_age(), archive.observe_age());
    if (!archive.enabled()) {
      facts_.Add("archive", (archive.has_observe_age() ? "off" : "unknown") + stale);
      return;
    }
    std::string waiting = "nothing waits";
    if (archive.ready_segments() > 0) {
      waiting = fmt::format("{} {} ({})", archive.ready_segments(),
                            archive.ready_segments() == 1 ? "segment waits" : "segments wait",
                            FormatBytes(archive.backlog_bytes()));
      if (archive.has_oldest_ready_age()) {
        waiting += fmt::format(", the oldest for {}", FormatDuration(archive.oldest_ready_age()));
      }
    }
    const std::string last = archive.last_archived_wal().empty()
                                 ? "none archived yet"
                                 : fmt::format("last {}, {}", archive.last_archived_wal(),
                                               Ago(archive.last_archived_time()));
    facts_.Add("archive", fmt::format("{}; {}{}", waiting, last, stale));
    facts_.Add("  error", Colored(archive.last_error(), Tone::kBad));
  }

  void AddOperation() {
    if (!status_.has_operation()) return;
    const auto& running = status_.operation();
    v1::Operation operation;
    operation.set_kind(running.kind());
    operation.mutable_progress()->set_phase(running.phase());
    operation.mutable_progress()->set_done_bytes(running.done_bytes());
    operation.mutable_progress()->set_total_bytes(running.total_bytes());
    operation.mutable_progress()->set_bytes_per_second(running.bytes_per_second());
    if (running.has_eta()) *operation.mutable_progress()->mutable_eta() = running.eta();
    std::string line = ProgressLine(operation, 0);
    if (running.total_bytes() <= 0) line = fmt::format("{}: {}", running.kind(), running.phase());
    facts_.Add("running", fmt::format("{}, began {}", line, Ago(running.start_time())));
    facts_.Add("  follow", "metalctl op watch " + running.name());
  }

  void AddRepository() {
    const auto& backups = status_.backups();
    if (backups.repository().empty()) return;
    facts_.Add("repository",
               backups.error().empty()
                   ? fmt::format("{}, {}", backups.repository(),
                                 backups.count() == 1 ? "1 backup"
                                                      : fmt::format("{} backups", backups.count()))
                   : backups.repository() + ": " + Colored(backups.error(), Tone::kBad));
  }

  std::string Followers() const {
    TextTable table(
        {"STANDBY", "STATE", "SYNC", "?>SENT", "?>FLUSHED", ">REPLAYED", ">BEHIND", ">LAG"});
    for (const auto& follower : status_.followers()) {
      table.AddRow({follower.application_name(), follower.state(), follower.sync_state(),
                    FormatLsn(follower.sent_lsn()), FormatLsn(follower.flush_lsn()),
                    FormatLsn(follower.replay_lsn()), FormatBytes(follower.lag_bytes()),
                    follower.has_lag() ? FormatDuration(follower.lag()) : "unknown"});
    }
    return table.empty() ? "" : "\n" + table.ToString(options_.width);
  }

  std::string Disks() const {
    TextTable table({"DISK", "HOLDS", "?MODEL", "?>SIZE", ">FREE", "HEALTH", ">READ P99",
                     ">WRITE P99", "?SMART"});
    for (const auto& disk : status_.disks()) {
      std::string smart = "unsupported";
      if (disk.smart().supported()) {
        const int warning = disk.smart().critical_warning();
        smart = warning == 0 ? Colored("ok", Tone::kGood)
                             : Colored(fmt::format("warning 0x{:02x}", warning), Tone::kBad);
      }
      const auto add = [&](const std::string& holds, const std::string& health,
                           const v1::ProbeStatus& probe) {
        table.AddRow({disk.device(), holds, disk.model(), FormatBytes(disk.size_bytes()),
                      FormatBytes(disk.filesystem_free_bytes()), health,
                      probe.read().count() == 0 ? "" : FormatLatency(probe.read().p99()),
                      probe.write().count() == 0 ? "" : FormatLatency(probe.write().p99()), smart});
      };
      for (const auto& probe : disk.probes()) {
        add(probe.role(),
            Colored(EnumWord(v1::ProbeState_Name(probe.state()), "PROBE_STATE_"),
                    ToneOf(probe.state())),
            probe);
      }
      if (disk.probes().empty()) {
        std::string roles;
        for (const auto& role : disk.roles()) roles += (roles.empty() ? "" : ",") + role;
        add(roles, "not probed", {});
      }
    }
    return table.empty() ? "" : "\n" + table.ToString(options_.width);
  }

  std::string Backups() const {
    const auto& backups = status_.backups();
    if (!backups.error().empty()) return "";
    // Left out from the right where it is narrow: at 80 columns what says how good a backup was
    // stays.
    TextTable table(
        {"BACKUP", "STATE", ">AGE", ">SIZE", ">RATIO", "?>RATE", "?ENGINE", "?CODEC", "?>STORED"});
    for (const auto& backup : backups.latest()) {
      const bool complete = backup.state() == v1::BACKUP_STATE_COMPLETE;
      table.AddRow({backup.name().substr(backup.name().find('/') + 1),
                    Colored(EnumWord(v1::BackupState_Name(backup.state()), "BACKUP_STATE_"),
                            complete ? Tone::kGood : Tone::kBad),
                    FormatAge(backup.stop_time(), status_.capture_time()),
                    FormatBytes(backup.size_bytes()),
                    FormatRatio(backup.size_bytes(), backup.stored_bytes()),
                    FormatRate(backup.bytes_per_second()), backup.io_engine(), backup.codec(),
                    FormatBytes(backup.stored_bytes())});
    }
    std::string text = "\n" + table.ToString(options_.width);
    if (table.empty()) text = "\nno backups yet. HINT: metalctl backup create\n";
    if (backups.count() > backups.latest_size()) {
      text += fmt::format("the newest {} of {}: metalctl backup list\n", backups.latest_size(),
                          backups.count());
    }
    return text;
  }

  // First, where they cannot be missed.
  std::string Faults() const {
    std::string out;
    for (const auto& fault : status_.faults()) {
      const Tone tone = fault.severity() >= v1::SEVERITY_ERROR ? Tone::kBad : Tone::kCaution;
      out += fmt::format("{} {} {}, since {}: {}\n", Colored("FAULT", tone), fault.fault_class(),
                         fault.subject(), FormatAge(fault.since_time(), status_.capture_time()),
                         fault.message());
      if (!fault.disk().has_acknowledgement()) continue;
      const v1::FaultAcknowledgement& known = fault.disk().acknowledgement();
      out += fmt::format("  acknowledged by {}, {} ago{}\n", known.caller(),
                         FormatAge(known.time(), status_.capture_time()),
                         known.reason().empty() ? "" : ": " + known.reason());
    }
    return out.empty() ? out : out + "\n";
  }

  const v1::NodeStatus& status_;
  const TextOptions options_;
  FactList facts_;
};

}  // namespace

std::string StatusText(const v1::NodeStatus& status, const TextOptions& options) {
  return Writer(status, options).Write();
}

}  // namespace metal::ctl
