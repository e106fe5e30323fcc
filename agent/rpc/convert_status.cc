#include "agent/rpc/convert_status.h"

#include <algorithm>
#include <cstdint>

namespace metal::rpc {
namespace {

// Unset when nothing was observed yet.
template <typename Message>
void SetAge(const observe::SectionTime& time, base::MonotonicTime now, Message* out) {
  if (time.captured_at == absl::InfinitePast()) return;
  *out->mutable_observe_age() = ToProto(now - time.monotonic);
}

template <typename Setter>
void SetTime(absl::Time time, Setter&& mutable_field) {
  if (time == absl::InfinitePast() || time == absl::InfiniteFuture()) return;
  *mutable_field() = ToProto(time);
}

v1::ProbeState ProbeStateOf(const std::string& state) {
  if (state == "healthy") return v1::PROBE_STATE_HEALTHY;
  if (state == "slow") return v1::PROBE_STATE_SLOW;
  if (state == "stalled") return v1::PROBE_STATE_STALLED;
  if (state == "faulted") return v1::PROBE_STATE_FAULTED;
  if (state == "unsupported") return v1::PROBE_STATE_UNSUPPORTED;
  return v1::PROBE_STATE_UNSPECIFIED;
}

void ToProto(const observe::LatencySummary& summary, v1::LatencySummary* out) {
  out->set_count(static_cast<int64_t>(summary.count));
  if (summary.count == 0) return;
  *out->mutable_min() = rpc::ToProto(summary.min);
  *out->mutable_mean() = rpc::ToProto(summary.mean);
  *out->mutable_p50() = rpc::ToProto(summary.p50);
  *out->mutable_p90() = rpc::ToProto(summary.p90);
  *out->mutable_p99() = rpc::ToProto(summary.p99);
  *out->mutable_p999() = rpc::ToProto(summary.p999);
  *out->mutable_p9999() = rpc::ToProto(summary.p9999);
  *out->mutable_max() = rpc::ToProto(summary.max);
}

void LeaseToProto(const observe::LeaseSection& lease, base::MonotonicTime now,
                  v1::LeaseStatus* out) {
  out->set_term(lease.term);
  *out->mutable_ttl() = rpc::ToProto(lease.ttl);
  *out->mutable_remaining() = rpc::ToProto(std::max(lease.deadline - now, absl::ZeroDuration()));
  out->set_expired(lease.expired);
}

void NodeToProto(const observe::NodeSection& node, base::MonotonicTime now, v1::NodeIdentity* out) {
  out->set_node_id(node.node_id);
  out->set_cluster_id(node.cluster_id);
  out->set_hostname(node.hostname);
  out->set_agent_version(node.agent_version);
  SetTime(node.agent_start, [&] { return out->mutable_agent_start_time(); });
  out->set_os_user(node.os_user);
  out->set_term(node.term);
  out->set_term_orchestrator_id(node.term_orchestrator);
  out->set_fenced(node.fenced);
  out->set_fence_reason(node.fence_reason);
  out->set_fence_term(node.fence_term);
  out->set_role_wanted(rpc::ToProto(node.role_wanted));
  out->set_io_engine(node.io_engine);
  out->set_io_engine_reason(node.io_engine_reason);
  out->set_grpc_address(node.grpc_address);
  if (node.lease.ttl > absl::ZeroDuration() || node.lease.expired) {
    LeaseToProto(node.lease, now, out->mutable_lease());
  }
}

void PostgresToProto(const observe::PostgresSection& postgres, base::MonotonicTime now,
                     v1::PostgresStatus* out) {
  out->set_state(static_cast<v1::PostgresState>(postgres.state));
  out->set_state_reason(postgres.state_reason);
  out->set_role_observed(rpc::ToProto(postgres.role_observed));
  out->set_pid(postgres.pid);
  SetTime(postgres.start_time, [&] { return out->mutable_start_time(); });
  out->set_version(postgres.version);
  out->set_version_num(postgres.version_num);
  out->set_data_directory(postgres.data_directory);
  out->set_socket_directory(postgres.socket_dir);
  out->set_port(postgres.port);
  out->set_system_identifier(postgres.system_identifier);
  out->set_timeline(postgres.timeline);
  out->set_current_lsn(postgres.current_lsn.value);
  out->set_flush_lsn(postgres.flush_lsn.value);
  out->set_insert_lsn(postgres.insert_lsn.value);
  out->set_in_recovery(postgres.in_recovery);
  out->set_data_checksums(postgres.data_checksums);
  out->set_checksum_failures(postgres.checksum_failures);
  out->set_connections(postgres.connections);
  out->set_max_connections(postgres.max_connections);
  out->set_restarts(postgres.restarts);
  out->set_settings_pending_restart(postgres.settings_pending_restart);
  out->set_synchronous_standby_names(postgres.synchronous_standby_names);
  out->set_control_state(postgres.control_state);
  out->set_redo_lsn(postgres.redo_lsn.value);
  out->set_start_progress(postgres.start_progress);
  SetAge(postgres.time, now, out);
}

void StandbyToProto(const observe::StandbySection& standby, base::MonotonicTime now,
                    v1::StandbyStatus* out) {
  out->set_receiver_state(standby.receiver_state);
  out->set_sender_host(standby.sender_host);
  out->set_sender_port(standby.sender_port);
  out->set_slot_name(standby.slot_name);
  out->set_source(standby.source);
  out->set_source_slot(standby.source_slot);
  out->set_received_lsn(standby.received_lsn.value);
  out->set_flushed_lsn(standby.flushed_lsn.value);
  out->set_replayed_lsn(standby.replayed_lsn.value);
  out->set_latest_end_lsn(standby.latest_end_lsn.value);
  out->set_received_timeline(standby.received_timeline);
  if (standby.lag_bytes) out->set_lag_bytes(static_cast<int64_t>(*standby.lag_bytes));
  if (standby.lag_seconds) *out->mutable_lag() = rpc::ToProto(*standby.lag_seconds);
  out->set_lag_source(standby.lag_source);
  SetTime(standby.last_message, [&] { return out->mutable_last_message_time(); });
  SetTime(standby.last_replayed_commit, [&] { return out->mutable_last_replayed_commit_time(); });
  out->set_replay_paused(standby.replay_paused);
  out->set_pause_state(standby.pause_state);
  if (standby.heartbeat) {
    auto* heartbeat = out->mutable_heartbeat();
    heartbeat->set_term(standby.heartbeat->term);
    heartbeat->set_node_id(standby.heartbeat->node_id);
    SetTime(standby.heartbeat->time, [&] { return heartbeat->mutable_time(); });
    heartbeat->set_lsn(standby.heartbeat->lsn.value);
  }
  SetAge(standby.time, now, out);
}

void FollowerToProto(const observe::FollowerSection& follower, v1::FollowerStatus* out) {
  out->set_application_name(follower.application_name);
  out->set_client_address(follower.client_address);
  out->set_state(follower.state);
  out->set_sync_state(follower.sync_state);
  out->set_pid(follower.pid);
  out->set_sent_lsn(follower.sent_lsn.value);
  out->set_write_lsn(follower.write_lsn.value);
  out->set_flush_lsn(follower.flush_lsn.value);
  out->set_replay_lsn(follower.replay_lsn.value);
  out->set_lag_bytes(static_cast<int64_t>(follower.lag_bytes));
  if (follower.lag_seconds) *out->mutable_lag() = rpc::ToProto(*follower.lag_seconds);
  SetTime(follower.reply_time, [&] { return out->mutable_reply_time(); });
}

void SlownessToProto(const observe::SlownessSection& slowness, v1::DiskSlowness* out) {
  out->set_state(slowness.state == "slow"        ? v1::SLOW_STATE_SLOW
                 : slowness.state == "suspected" ? v1::SLOW_STATE_SUSPECTED
                                                 : v1::SLOW_STATE_NORMAL);
  out->set_factor(slowness.factor);
  out->set_confidence(slowness.confidence);
  out->set_learning(slowness.learning);
  if (slowness.median_excess) out->set_median_excess(*slowness.median_excess);
  if (slowness.p99_excess) out->set_p99_excess(*slowness.p99_excess);
}

void ActivityToProto(const observe::ActivitySection& activity, v1::DiskActivity* out) {
  out->set_read_bytes_per_second(activity.read_bytes_per_second);
  out->set_write_bytes_per_second(activity.write_bytes_per_second);
  out->set_reads_per_second(activity.reads_per_second);
  out->set_writes_per_second(activity.writes_per_second);
  out->set_flushes_per_second(activity.flushes_per_second);
  if (activity.read_latency) *out->mutable_read_latency() = rpc::ToProto(*activity.read_latency);
  if (activity.write_latency) *out->mutable_write_latency() = rpc::ToProto(*activity.write_latency);
  if (activity.flush_latency) *out->mutable_flush_latency() = rpc::ToProto(*activity.flush_latency);
  out->set_busy(activity.busy);
  out->set_in_flight(static_cast<int64_t>(activity.in_flight));
}

void SpaceToProto(const observe::SpaceSection& space, v1::SpaceStatus* out) {
  out->set_used_percent(space.used_percent);
  if (space.inodes_used_percent) out->set_inodes_used_percent(*space.inodes_used_percent);
  out->set_level_percent(space.level_percent);
  out->set_least_free_bytes(static_cast<int64_t>(space.least_free_bytes));
  out->set_tight(space.tight);
  if (space.recent_growth) out->set_recent_growth(*space.recent_growth);
  if (space.long_growth) out->set_long_growth(*space.long_growth);
  if (space.full_in_recent) {
    *out->mutable_full_in_recent() = rpc::ToProto(*space.full_in_recent);
  }
  if (space.full_in_long) *out->mutable_full_in_long() = rpc::ToProto(*space.full_in_long);
}

void RoomToProto(const observe::RoomSection& room, v1::RoomStatus* out) {
  out->set_read_only(room.read_only);
  out->set_read_only_reason(room.read_only_reason);
  for (const observe::ReserveSection& each : room.reserves) {
    v1::SpaceReserve* reserve = out->add_reserves();
    reserve->set_role(each.role);
    reserve->set_path(each.path);
    reserve->set_size_bytes(static_cast<int64_t>(each.size_bytes));
    reserve->set_reason(each.reason);
  }
}

void SmartToProto(const observe::SmartSection& smart, base::MonotonicTime now,
                  v1::SmartStatus* out) {
  out->set_supported(smart.supported);
  out->set_unsupported_reason(smart.unsupported_reason);
  if (!smart.supported) return;
  out->set_critical_warning(smart.critical_warning);
  if (smart.temperature_celsius) out->set_temperature_celsius(*smart.temperature_celsius);
  out->set_available_spare_percent(smart.available_spare_percent);
  out->set_available_spare_threshold_percent(smart.available_spare_threshold);
  out->set_percentage_used(smart.percentage_used);
  out->set_media_errors(static_cast<int64_t>(smart.media_errors));
  out->set_error_log_entries(static_cast<int64_t>(smart.error_log_entries));
  out->set_power_on_hours(static_cast<int64_t>(smart.power_on_hours));
  out->set_unsafe_shutdowns(static_cast<int64_t>(smart.unsafe_shutdowns));
  out->set_host_read_bytes(static_cast<int64_t>(smart.bytes_read));
  out->set_host_written_bytes(static_cast<int64_t>(smart.bytes_written));
  SetAge(smart.time, now, out);
}

void ProbeToProto(const observe::ProbeSection& probe, v1::ProbeStatus* out) {
  out->set_role(probe.role);
  out->set_path(probe.path);
  out->set_state(ProbeStateOf(probe.state));
  out->set_state_reason(probe.state_reason);
  SetTime(probe.state_since, [&] { return out->mutable_state_since_time(); });
  if (probe.oldest_outstanding) {
    *out->mutable_oldest_outstanding() = rpc::ToProto(*probe.oldest_outstanding);
  }
  ToProto(probe.read, out->mutable_read());
  ToProto(probe.write, out->mutable_write());
  out->set_read_errors(static_cast<int64_t>(probe.read_errors));
  out->set_write_errors(static_cast<int64_t>(probe.write_errors));
  out->set_late(static_cast<int64_t>(probe.late));
  out->set_last_error(probe.last_error);
}

void OperationToProto(const observe::OperationSection& operation, base::MonotonicTime now,
                      v1::RunningOperation* out) {
  SetAge(operation.time, now, out);
  out->set_name(operation.name);
  out->set_kind(operation.kind);
  out->set_phase(operation.phase);
  SetTime(operation.started, [&] { return out->mutable_start_time(); });
  out->set_done_bytes(static_cast<int64_t>(operation.done_bytes));
  out->set_total_bytes(static_cast<int64_t>(operation.total_bytes));
  out->set_bytes_per_second(operation.bytes_per_second);
  if (operation.eta != absl::InfiniteDuration()) {
    *out->mutable_eta() = rpc::ToProto(operation.eta);
  }
}

v1::GateState GateStateOf(observe::GateState state) {
  switch (state) {
    case observe::GateState::kOff:
      return v1::GATE_STATE_OFF;
    case observe::GateState::kOpen:
      return v1::GATE_STATE_OPEN;
    case observe::GateState::kHeld:
      return v1::GATE_STATE_HELD;
    case observe::GateState::kDown:
      return v1::GATE_STATE_DOWN;
  }
  return v1::GATE_STATE_UNSPECIFIED;
}

v1::ReadOnlyDoorState DoorStateOf(observe::ReadOnlyDoorState state) {
  switch (state) {
    case observe::ReadOnlyDoorState::kNone:
      return v1::READ_ONLY_DOOR_STATE_UNSPECIFIED;
    case observe::ReadOnlyDoorState::kOpen:
      return v1::READ_ONLY_DOOR_STATE_OPEN;
    case observe::ReadOnlyDoorState::kClosed:
      return v1::READ_ONLY_DOOR_STATE_CLOSED;
    case observe::ReadOnlyDoorState::kDown:
      return v1::READ_ONLY_DOOR_STATE_DOWN;
  }
  return v1::READ_ONLY_DOOR_STATE_UNSPECIFIED;
}

void GateToProto(const observe::GateSection& gate, base::MonotonicTime now, v1::GateStatus* out) {
  out->set_state(GateStateOf(gate.state));
  out->set_reason(gate.reason);
  out->set_listen(gate.listen);
  out->set_host(gate.host);
  out->set_port(gate.port);
  SetTime(gate.held_since, [&] { return out->mutable_held_since_time(); });
  SetTime(gate.held_until, [&] { return out->mutable_held_until_time(); });
  out->set_term(gate.term);
  out->set_orchestrator_id(gate.orchestrator);
  out->set_pid(gate.pid);
  out->set_restarts(gate.restarts);
  out->set_clients(gate.clients);
  out->set_waiting_clients(gate.waiting);
  out->set_server_connections(gate.servers);
  out->set_transactions(gate.transactions);
  SetAge(gate.time, now, out);
  if (gate.read_only.state == observe::ReadOnlyDoorState::kNone) return;
  auto* door = out->mutable_read_only();
  door->set_state(DoorStateOf(gate.read_only.state));
  door->set_reason(gate.read_only.reason);
  door->set_listen(gate.read_only.listen);
  door->set_pid(gate.read_only.pid);
  door->set_clients(gate.read_only.clients);
  door->set_waiting_clients(gate.read_only.waiting);
}

}  // namespace

google::protobuf::Timestamp ToProto(absl::Time time) {
  google::protobuf::Timestamp out;
  const timespec value = absl::ToTimespec(time);
  out.set_seconds(value.tv_sec);
  out.set_nanos(static_cast<int32_t>(value.tv_nsec));
  return out;
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration out;
  absl::Duration rest;
  const int64_t seconds = absl::IDivDuration(duration, absl::Seconds(1), &rest);
  out.set_seconds(seconds);
  out.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return out;
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

v1::Role ToProto(observe::Role role) {
  switch (role) {
    case observe::Role::kPrimary:
      return v1::ROLE_PRIMARY;
    case observe::Role::kStandby:
      return v1::ROLE_STANDBY;
    case observe::Role::kUnknown:
      break;
  }
  return v1::ROLE_UNSPECIFIED;
}

v1::Severity ToProto(observe::Severity severity) {
  return static_cast<v1::Severity>(static_cast<int>(severity) + 1);
}

observe::Severity FromProto(v1::Severity severity) {
  switch (severity) {
    case v1::SEVERITY_WARNING:
      return observe::Severity::kWarning;
    case v1::SEVERITY_ERROR:
      return observe::Severity::kError;
    case v1::SEVERITY_CRITICAL:
      return observe::Severity::kCritical;
    default:
      return observe::Severity::kInfo;
  }
}

void ToProto(const observe::ArchiveSection& archive, base::MonotonicTime now,
             v1::ArchiveStatus* out) {
  out->set_enabled(archive.enabled);
  out->set_mode(archive.mode);
  out->set_ready_segments(static_cast<int64_t>(archive.ready_segments));
  out->set_backlog_bytes(static_cast<int64_t>(archive.backlog_bytes));
  if (archive.oldest_ready_age) {
    *out->mutable_oldest_ready_age() = ToProto(*archive.oldest_ready_age);
  }
  out->set_last_archived_wal(archive.last_archived_wal);
  SetTime(archive.last_archived, [&] { return out->mutable_last_archived_time(); });
  out->set_last_failed_wal(archive.last_failed_wal);
  SetTime(archive.last_failed, [&] { return out->mutable_last_failed_time(); });
  out->set_archived_count(archive.archived_count);
  out->set_failed_count(archive.failed_count);
  out->set_last_error(archive.last_error);
  SetAge(archive.time, now, out);
}

void ToProto(const observe::DiskSection& disk, base::MonotonicTime now, v1::DiskStatus* out) {
  out->set_name("disks/" + disk.device);
  out->set_device(disk.device);
  for (const auto& role : disk.roles) out->add_roles(role);
  for (const auto& layer : disk.stack) out->add_stack(layer);
  out->set_mount_point(disk.mount_point);
  out->set_filesystem(disk.filesystem);
  out->set_model(disk.model);
  out->set_serial(disk.serial);
  out->set_wwid(disk.wwid);
  out->set_firmware(disk.firmware);
  out->set_transport(disk.transport);
  out->set_scheduler(disk.scheduler);
  out->set_write_cache(disk.write_cache);
  out->set_size_bytes(static_cast<int64_t>(disk.size_bytes));
  out->set_logical_block_bytes(static_cast<int64_t>(disk.logical_block_size));
  out->set_physical_block_bytes(static_cast<int64_t>(disk.physical_block_size));
  out->set_filesystem_size_bytes(static_cast<int64_t>(disk.filesystem_size_bytes));
  out->set_filesystem_free_bytes(static_cast<int64_t>(disk.filesystem_free_bytes));
  out->set_rotational(disk.rotational);
  SmartToProto(disk.smart, now, out->mutable_smart());
  if (disk.slowness) SlownessToProto(*disk.slowness, out->mutable_slowness());
  if (disk.activity) ActivityToProto(*disk.activity, out->mutable_activity());
  for (const auto& probe : disk.probes) ProbeToProto(probe, out->add_probes());
  if (disk.space) SpaceToProto(*disk.space, out->mutable_space());
  SetAge(disk.time, now, out);
  if (disk.filesystem_time.captured_at != absl::InfinitePast()) {
    *out->mutable_filesystem_observe_age() = ToProto(now - disk.filesystem_time.monotonic);
  }
}

void ToProto(const observe::TermHistoryEntry& entry, v1::TermHistoryEntry* out) {
  out->set_term(entry.term);
  out->set_timeline(entry.timeline);
  out->set_start_lsn(entry.start_lsn.value);
  SetTime(entry.time, [&] { return out->mutable_time(); });
  out->set_node_id(entry.node_id);
  out->set_orchestrator_id(entry.orchestrator_id);
}

void ToProto(const observe::DurabilityRule& rule, v1::DurabilityRule* out) {
  out->set_copies(rule.copies);
  for (const std::string& name : rule.members) out->add_members(name);
}

void ToProto(const observe::Event& event, v1::Event* out) {
  out->set_id(event.id);
  *out->mutable_time() = ToProto(event.time);
  out->set_severity(ToProto(event.severity));
  out->set_type(event.type);
  out->set_subject(event.subject);
  out->set_message(event.message);
  out->mutable_attributes()->insert(event.attributes.begin(), event.attributes.end());
}

v1::BackupState BackupStateToProto(std::string_view state) {
  if (state == "suspect") return v1::BACKUP_STATE_SUSPECT;
  if (state == "damaged") return v1::BACKUP_STATE_DAMAGED;
  return v1::BACKUP_STATE_COMPLETE;
}

void ToProto(const observe::BackupSummary& backup, v1::BackupSummary* out) {
  out->set_name("backups/" + backup.name);
  out->set_state(BackupStateToProto(backup.state));
  SetTime(backup.start, [&] { return out->mutable_start_time(); });
  SetTime(backup.stop, [&] { return out->mutable_stop_time(); });
  out->set_size_bytes(static_cast<int64_t>(backup.bytes));
  out->set_stored_bytes(static_cast<int64_t>(backup.stored_bytes));
  out->set_bytes_per_second(backup.bytes_per_second);
  out->set_codec(backup.codec);
  out->set_io_engine(backup.io_engine);
  out->set_start_lsn(backup.start_lsn.value);
  out->set_stop_lsn(backup.stop_lsn.value);
  out->set_timeline(backup.timeline);
}

void ToProto(const observe::NodeStatus& status, base::MonotonicTime now, v1::NodeStatus* out) {
  out->set_revision(status.revision);
  *out->mutable_capture_time() = ToProto(status.captured_at);
  NodeToProto(status.node, now, out->mutable_node());
  PostgresToProto(status.postgres, now, out->mutable_postgres());
  if (status.standby.present) StandbyToProto(status.standby, now, out->mutable_standby());
  for (const auto& follower : status.followers.followers) {
    FollowerToProto(follower, out->add_followers());
  }
  if (status.followers.time.captured_at != absl::InfinitePast()) {
    *out->mutable_followers_observe_age() = ToProto(now - status.followers.time.monotonic);
  }
  ToProto(status.archive, now, out->mutable_archive());
  for (const auto& disk : status.disks) ToProto(disk, now, out->add_disks());
  RoomToProto(status.room, out->mutable_room());
  if (IsKnown(status.pressure)) ToProto(status.pressure, now, out->mutable_pressure());
  out->mutable_backups()->set_repository(status.backups.repository);
  out->mutable_backups()->set_error(status.backups.error);
  out->mutable_backups()->set_count(static_cast<int64_t>(status.backups.count));
  for (const auto& backup : status.backups.latest) {
    ToProto(backup, out->mutable_backups()->add_latest());
  }
  SetAge(status.backups.time, now, out->mutable_backups());
  GateToProto(status.gate, now, out->mutable_gate());
  if (status.operation.running) OperationToProto(status.operation, now, out->mutable_operation());
  for (const auto& [key, fault] : status.faults) ToProto(fault, out->add_faults());
  for (const auto& entry : status.term_history.entries) ToProto(entry, out->add_term_history());
  for (const auto& rule : status.term_history.durability) ToProto(rule, out->add_durability());
  if (status.term_history.time.captured_at != absl::InfinitePast()) {
    *out->mutable_term_history_observe_age() = ToProto(now - status.term_history.time.monotonic);
  }
}

}  // namespace metal::rpc
