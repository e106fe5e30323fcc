#include "agent/backup/rehearsal_settings.h"

#include <climits>
#include <span>

namespace metal::backup {
namespace {

struct Setting {
  const char* name;
  const char* value;
  int first = 0, last = INT_MAX;  // major versions that have it
};

constexpr Setting kSettings[] = {
    // Nobody is reached, and nobody reaches it but this process's user.
    {"listen_addresses", ""},
    {"unix_socket_permissions", "0700"},
    {"unix_socket_group", ""},
    {"ssl", "off"},
    {"bonjour", "off"},
    {"primary_conninfo", ""},
    {"primary_slot_name", ""},
    {"sync_replication_slots", "off", 17},
    {"synchronous_standby_names", ""},
    {"max_logical_replication_workers", "0"},  // subscriptions would go on in the copy
    // No command and no library of the source runs; restore_command is the restore's own.
    {"archive_mode", "off"},
    {"archive_command", ""},
    {"archive_library", "", 15},
    {"archive_cleanup_command", ""},
    {"recovery_end_command", ""},
    {"shared_preload_libraries", ""},  // they bring background workers
    // It writes below its own directory only.
    {"logging_collector", "off"},
    {"log_destination", "stderr"},
    {"external_pid_file", ""},
    {"stats_temp_directory", "pg_stat_tmp", 0, 14},
    {"promote_trigger_file", "", 0, 15},
    // It is small, short-lived and thrown away.
    {"cluster_name", "metal-rehearsal"},
    {"shared_buffers", "128MB"},
    {"huge_pages", "off"},
    {"autovacuum", "off"},
    {"fsync", "off"},
    {"restart_after_crash", "off"},
    {"wal_keep_size", "0"},
    {"temp_file_limit", "1GB"},
};

constexpr Setting kSessionSettings[] = {
    {"session_preload_libraries", ""},
    {"local_preload_libraries", ""},
    {"session_replication_role", "replica"},  // event triggers of the source do not fire
    {"event_triggers", "off", 17},            // nor those that always do
    {"default_transaction_read_only", "off"},
};

void Add(std::span<const Setting> table, int major, Settings& settings) {
  for (const Setting& setting : table) {
    if (major >= setting.first && major <= setting.last) {
      settings.emplace_back(setting.name, setting.value);
    }
  }
}

}  // namespace

Settings RehearsalSettings(int major, const RehearsalPlaces& places) {
  // As little WAL as the server takes: its scratch directory may lie on a small disk.
  const std::string wal = std::to_string(2 * (places.wal_segment_size >> 20)) + "MB";
  Settings settings = {
      // A postgresql.conf that names another data directory would start the server there.
      {"data_directory", places.data_directory},
      {"unix_socket_directories", places.socket_directory},
      {"hba_file", places.hba_file},
      {"min_wal_size", wal},
      {"max_wal_size", wal}};
  Add(kSettings, major, settings);
  Add(kSessionSettings, major, settings);
  return settings;
}

Settings RehearsalSessionSettings(int major) {
  Settings settings;
  Add(kSessionSettings, major, settings);
  return settings;
}

}  // namespace metal::backup
