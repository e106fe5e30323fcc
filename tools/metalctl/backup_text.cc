#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {

std::string BackupId(const std::string& name) {
  return name.rfind("backups/", 0) == 0 ? name.substr(8) : name;
}

std::string BackupText(const v1::Backup& backup) {
  const auto& summary = backup.summary();
  FactList facts;
  facts.Add("backup", BackupId(summary.name()));
  facts.Add("state", EnumWord(v1::BackupState_Name(summary.state()), "BACKUP_STATE_"));
  if (!backup.damage().empty()) facts.Add("damage", backup.damage());
  if (summary.state() == v1::BACKUP_STATE_DAMAGED) {
    facts.Add("note", "its manifest cannot be read, so nothing else is known of it");
    facts.Add("next", fmt::format("metalctl backup verify {} says why", BackupId(summary.name())));
    return facts.ToString();
  }
  facts.Add("taken", fmt::format("{} to {}", FormatTime(summary.start_time()),
                                 FormatTime(summary.stop_time())));
  facts.Add("source", backup.from_standby() ? "standby" : "primary");
  facts.Add("system", std::to_string(backup.system_identifier()));
  facts.Add("PostgreSQL", fmt::format("{}.{}", backup.postgres_version_num() / 10000,
                                      backup.postgres_version_num() % 10000));
  facts.Add("LSN", fmt::format("{} to {}, timeline {}", FormatLsn(summary.start_lsn()),
                               FormatLsn(summary.stop_lsn()), summary.timeline()));
  facts.Add("size",
            fmt::format("{} in {} files", FormatBytes(summary.size_bytes()), backup.file_count()));
  facts.Add("stored", fmt::format("{} in {} frames, ratio {}", FormatBytes(summary.stored_bytes()),
                                  backup.frame_count(),
                                  FormatRatio(summary.size_bytes(), summary.stored_bytes())));
  facts.Add("codec", summary.codec() == "none"
                         ? "none"
                         : fmt::format("{} level {}", summary.codec(), backup.level()));
  facts.Add("rate",
            fmt::format("{} with {}", FormatRate(summary.bytes_per_second()), summary.io_engine()));
  for (const auto& [oid, path] : std::map<std::string, std::string>(backup.tablespaces().begin(),
                                                                    backup.tablespaces().end())) {
    facts.Add("tablespace " + oid, path);
  }
  if (backup.corrupt_page_count() > 0)
    facts.Add("corrupt pages", std::to_string(backup.corrupt_page_count()));
  for (const auto& page : backup.corrupt_pages()) facts.Add("  page", page);
  for (const auto& [name, value] : std::map<std::string, std::string>(backup.annotations().begin(),
                                                                      backup.annotations().end())) {
    facts.Add("note " + name, value);
  }
  return facts.ToString();
}

}  // namespace metal::ctl
