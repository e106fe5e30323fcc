#include "tools/metalctl/cli_commands.h"

namespace metal::ctl {
namespace {

void AddCreateCommand(CLI::App* backup, Invocation& invocation) {
  auto create = std::make_shared<BackupCreateOptions>();
  auto* command =
      AddCommand(backup, "create",
                 "Take a full backup of the running PostgreSQL; exit code 6 when it is suspect",
                 "backup create\nbackup create --codec lz4 --note why='before the upgrade'\n"
                 "backup create --rate 200MiB");
  command->add_option("--codec", create->codec, "Compression (default: as configured)")
      ->check(CLI::IsMember({"zstd", "lz4", "none"}));
  command->add_option("--level", create->level, "Level of the codec");
  command->add_flag("--spread-checkpoint", create->spread_checkpoint,
                    "Do not hurry the first checkpoint");
  AddRate(command, &create->rate_limit, "Most bytes read per second (default no limit)");
  command->add_flag("--ignore-free-space", create->ignore_free_space,
                    "Start although the repository's disk has hardly room for it");
  AddPairs(command, "--note", &create->annotations, "Free text kept with the backup");
  AddDetach(command, &create->follow);
  OnRun(command, invocation,
        [create](const Client& client) { return CreateBackup(client, *create); });
}

void AddVerifyCommand(CLI::App* backup, Invocation& invocation) {
  auto verify = std::make_shared<BackupVerifyOptions>();
  auto* command = AddCommand(backup, "verify",
                             "Check every frame of a backup and the WAL that it needs; exit code 6 "
                             "when damaged or suspect",
                             "backup verify\nbackup verify 20261122T021500Z-F --restore");
  command->add_option("name", verify->name, "Backup, or latest")->capture_default_str();
  command->add_flag("--restore", verify->rehearse,
                    "Also restore into a scratch directory, boot, run pg_amcheck");
  command->add_option("--scratch", verify->scratch_directory, "Where to rehearse")
      ->type_name("DIRECTORY");
  AddDetach(command, &verify->follow);
  OnRun(command, invocation,
        [verify](const Client& client) { return VerifyBackup(client, *verify); });
}

void AddRestoreCommand(CLI::App* backup, Invocation& invocation) {
  auto restore = std::make_shared<RestoreOptions>();
  auto* command =
      AddCommand(backup, "restore",
                 "Restore a backup into an empty directory; exit code 6 when it is a suspect one",
                 "backup restore latest --target /mnt/copy --recover standby\n"
                 "backup restore 20261122T021500Z-F --target /mnt/copy --dry-run\n"
                 "backup restore latest --term 8");
  command->add_option("name", restore->name, "Backup, or latest")->capture_default_str();
  command
      ->add_option("--target", restore->target_directory,
                   "Where to (default: the node's data directory; needs --term)")
      ->type_name("DIRECTORY");
  AddPairs(command, "--tablespace", &restore->tablespaces, "OID=PATH: where a tablespace goes");
  command
      ->add_option("--recover", restore->recover,
                   "latest: all WAL, then read-write; immediate: the end of the backup; standby: "
                   "stay a standby")
      ->check(CLI::IsMember({"latest", "immediate", "standby"}))
      ->capture_default_str();
  command->add_option("--port", restore->port, "Port of the copy")->check(CLI::Range(1, 65535));
  command->add_option("--term", restore->term,
                      "Term, when the target is the node's data directory");
  command->add_option("--orchestrator", restore->orchestrator, "Who holds the term")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_flag("--dry-run", restore->dry_run, "Only check; changes nothing");
  AddDetach(command, &restore->follow);
  OnRun(command, invocation,
        [restore](const Client& client) { return RestoreBackup(client, *restore); });
}

}  // namespace

void AddBackupCommands(CLI::App& app, Invocation& invocation) {
  auto* backup = AddFamily(app, "backup", "Back up, verify, restore", "Backups");
  AddCreateCommand(backup, invocation);
  OnRun(AddCommand(backup, "list", "List backups, newest first", "backup list"), invocation,
        ListBackups);
  auto name = std::make_shared<std::string>("latest");
  auto* show =
      AddCommand(backup, "show", "Show one backup", "backup show\nbackup show 20261122T021500Z-F");
  show->add_option("name", *name, "Backup, or latest")->capture_default_str();
  OnRun(show, invocation, [name](const Client& client) { return ShowBackup(client, *name); });
  AddVerifyCommand(backup, invocation);
  AddRestoreCommand(backup, invocation);
  OnRun(AddCommand(backup, "archive", "Show the WAL archive", "backup archive"), invocation,
        ShowArchive);
}

}  // namespace metal::ctl
