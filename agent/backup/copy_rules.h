// Which entries of a data directory belong into a backup, and which files are relations whose pages
// carry checksums. Source: PostgreSQL src/backend/backup/basebackup.c (excludeDirContents,
// excludeFiles, sendDir) of 13–18; pgBackRest's manifest build for the files that basebackup.c
// leaves to the server. Threading: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/base/units.h"

namespace metal::backup {

enum class EntryAction : uint8_t {
  kCopy,       // file: copy; directory: copy and descend
  kKeepEmpty,  // directory: make it, without its contents
  kSkip,       // as if it were not there
  kCopyLast,   // global/pg_control: read after everything else
};

// `path` is relative to the data directory, tablespaces being pg_tblspc/<oid>/….
EntryAction ClassifyDirectory(std::string_view path);
EntryAction ClassifyFile(std::string_view path);

// Whether files of this directory are relation files: base/<db>, global, pg_tblspc/<oid>/PG_…/<db>.
bool IsRelationDirectory(std::string_view directory);

enum class RelationFork : uint8_t { kMain, kFreeSpaceMap, kVisibilityMap, kInit };

struct RelationFile {
  std::string_view relation;  // the relfilenumber's digits, part of the parsed name
  RelationFork fork = RelationFork::kMain;
  uint32_t segment = 0;
};
// From "16384", "16384.1", "16384_vm", "16384_init"; nullopt for other names.
std::optional<RelationFile> ParseRelationFile(std::string_view name);
// "t<backend>_<relfilenumber>…": a temporary relation.
bool IsTemporaryRelation(std::string_view name);

// Decimal, without leading zero, fits 32 bits.
std::optional<uint32_t> ParseOid(std::string_view text);

// "PG_<major>_<catalog version>": the directory of one server version inside a tablespace.
std::string TablespaceVersionDirectory(int major_version, uint32_t catalog_version);

}  // namespace metal::backup
