// The agent's configuration: one table of options (config.cc) gives parsing, defaults, checks, help
// and docs. File: TOML, by default /etc/metal/agent.toml. Unknown keys are errors. Threading:
// immutable after LoadConfig.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/units.h"

namespace metal::base {

struct AgentConfig {
  // [agent]
  std::string node_id;     // default: the host name
  std::string cluster_id;  // free label of the shard; default "default"
  std::string state_dir;   // default /var/lib/metal; must not be on the data disk in production
  std::string os_user;     // user to run as when started by root; default "postgres"
  std::string socket;      // gRPC unix socket; default /run/metal/agent.sock
  std::string wal_socket;  // metal-wal's unix socket; default /run/metal/wal.sock
  std::string listen;      // "host:port" of the TCP listener; empty: none; port 0: any free port
  std::string
      port_file;  // where the bound "host:port" is written (tests, quickstart); empty: nowhere
  std::string log_level;  // trace, debug, info, warning, error

  // [tls]
  std::string tls_certificate, tls_key, tls_client_ca;  // PEM files; all or none
  // [[tls.role]] san = "...", role = "viewer|operator|orchestrator|peer"
  struct RoleBinding {
    std::string san;  // exact DNS or URI subject alternative name
    std::string role;
  };
  std::vector<RoleBinding> role_bindings;

  // [postgres]
  std::string pg_bin_dir;     // default: newest /usr/lib/postgresql/*/bin
  std::string pg_data_dir;    // required
  std::string pg_wal_dir;     // initdb --waldir; empty: inside the data directory
  std::string pg_socket_dir;  // default /run/metal
  int pg_port = 5432;
  std::string pg_listen_addresses;  // default "127.0.0.1"
  std::string pg_superuser;         // default "postgres"
  int pg_restart_max = 5;           // crash restarts within pg_restart_window before quarantine
  absl::Duration pg_restart_window = absl::Minutes(10);
  absl::Duration pg_heartbeat_interval = absl::Seconds(1);  // of metal.heartbeat; zero: off

  // [replication]
  std::string replication_user;           // default "metal_replication"
  std::string replication_password_file;  // empty: standbys log in as the superuser, without one
  std::string replication_networks;       // words of pg_hba.conf's address, by blanks
  std::string replication_ssl_mode;       // default "prefer"
  // [transfer]
  std::string transfer_listen;     // "host:port" where other agents clone this node; empty: nowhere
  std::string transfer_port_file;  // where the bound "host:port" is written; empty: nowhere
  int transfer_connections = 2;    // of a clone that this node makes

  // [repository]
  std::string repository_path;  // required for backups; empty: backups and archiving are off
  std::string wal_helper;       // path of metal-wal; default: beside the agent's executable

  // [backup]
  std::string backup_codec;  // zstd, lz4, none; default zstd
  int backup_level = 1;
  int backup_threads = 0;               // codec threads; 0: one for each CPU
  int backup_queue_depth = 16;          // reads in flight
  std::string io_engine;                // auto, io_uring, threads, pread
  ByteCount backup_memory{192 * kMiB};  // buffers of all backups, restores and verifications
  ByteCount backup_rate_limit;          // in a second, of backups and served clones; 0: none
  absl::Duration backup_latency_max;    // of the data disk's probes meanwhile; zero: not watched

  // [gate]
  bool gate_enabled = false;
  std::string gate_listen;                 // "host:port"; default 127.0.0.1:6432
  std::string gate_read_only_listen;       // "host:port"; empty: no read-only door
  std::string gate_pgbouncer;              // path of the program
  std::string gate_pool_mode;              // transaction, session, statement
  std::string gate_auth_type;              // scram-sha-256, trust
  std::string gate_auth_file;              // empty: the agent writes one
  std::string gate_client_tls;             // disable, allow, require
  std::string gate_certificate, gate_key;  // PEM files for clients' TLS
  std::string gate_server_tls;             // disable, prefer, require, verify-ca, verify-full
  std::string gate_server_ca;              // PEM file
  int gate_max_client_conn = 1000;
  int gate_default_pool_size = 20;
  absl::Duration gate_read_only_max_lag = absl::Seconds(10);
  absl::Duration gate_hold_max = absl::Seconds(30);

  // [disk]
  bool probe_enabled = true;
  absl::Duration probe_read_interval = absl::Milliseconds(500);
  absl::Duration probe_write_interval = absl::Seconds(1);
  absl::Duration probe_stall_after = absl::Seconds(3);
  std::string disk_reaction;  // observe, drain, demote: the strongest that is asked for
  // [disk.reactions] class of fault → observe, drain, demote; the others: as the fault table wants
  // it, at most disk_reaction
  std::map<std::string, std::string> disk_reactions;
  bool disk_cut_clients = true;
  bool disk_unlisted_logs = false;  // drives are also asked for logs that they do not list
  absl::Duration xfs_retry_for = absl::Seconds(5);
  std::string disk_watchdog;  // "/dev/watchdog", "/dev/watchdog<number>"; empty: none
  absl::Duration disk_watchdog_timeout = absl::Seconds(30);
  ByteCount disk_reserve{kGiB};  // kept back for the server; 0: nothing is
  int disk_read_only_at = 97;    // percent used from which a primary is read-only; 0: never

  // [recorder]
  std::string recorder_directory;      // empty: <state_dir>/recorder
  ByteCount recorder_size{64 * kMiB};  // of the ring
  int recorder_captures_kept = 5;      // taken by itself after a fatal fault; 0: none
};

// INVALID_ARGUMENT names file, line, key and what is allowed, with a HINT.
absl::StatusOr<AgentConfig> LoadConfig(const std::string& path);
absl::StatusOr<AgentConfig> ParseConfig(std::string_view toml, std::string_view file_name);

// Every option with its default and meaning, as a commented TOML file (metal-agent
// --print-default-config).
std::string DefaultConfigText();

// Every option with the value that is in force, as TOML.
std::string EffectiveConfigText(const AgentConfig& config);

}  // namespace metal::base
