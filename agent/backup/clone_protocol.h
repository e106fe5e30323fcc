// What two agents say while one clones the other's data directory. The target connects to the
// source's transfer listener.
//   control connection:  Hello → Welcome, Begin → Status… → Plan | Failure
//   data connections:    Attach → Attached | Failure, then the source sends Records, Data and one
//                        End, each with a sequence number, over whichever connection is free; the
//                        target acknowledges each once it was verified. What was not acknowledged
//                        when a connection breaks is sent again over another one. Alive in both
//                        directions while there is nothing else to say. A Failure of the source
//                        ends the clone.
//   any time:            GiveUp, alone on a connection of its own: the target ends the clone.
// Abort ends a control connection after Welcome.
// Every field is bounded. Threading: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/units.h"

namespace metal::backup {

enum class CloneMessage : uint8_t {
  kHello = 1,
  kWelcome = 2,
  kBegin = 3,
  kStatus = 4,
  kPlan = 5,
  kAttach = 6,
  kAttached = 7,
  kRecords = 8,  // lines of a file list (file_list.h): directories, and files that are complete
  kData = 9,     // body: CloneData; payload: a frame as in a pack (store/frame.h)
  kEnd = 10,
  kAck = 11,
  kFailure = 12,
  kAbort = 13,
  kAlive = 14,
  kGiveUp = 15,
};

inline constexpr size_t kCloneSessionIdSize = 32;
inline constexpr size_t kClonePiecesMax = 128;  // of files in one frame

struct CloneHello {
  std::string node_id;  // of the target
};

// Who the source is and what it holds.
struct CloneWelcome {
  std::string node_id;
  std::string boot_id;             // of the kernel: the same one means the same devices
  uint64_t device = 0, inode = 0;  // of the data directory
  std::string data_directory;      // without links
  uint64_t system_identifier = 0;
  int postgres_major = 0;
  uint32_t catalog_version = 0;
  bool in_recovery = false;
  std::map<uint32_t, std::string> tablespaces;  // location by OID; in-place ones are left out
  std::map<uint32_t, uint64_t> bytes;           // to be copied now, by tablespace; 0: the rest
};

struct CloneBegin {
  std::string label;
  base::Lsn replay_lsn;     // the source, a standby, is to have replayed this first; 0: nothing
  uint64_t rate_limit = 0;  // bytes per second; 0: none
  std::string codec;        // "none", "lz4", "zstd"
};

struct CloneStatus {
  std::string phase;
};

// The copy may begin: attach to the session.
struct ClonePlan {
  std::string session;  // kCloneSessionIdSize hexadecimal digits
  base::Lsn start_lsn;
  base::TimelineId timeline = 0;
  std::map<uint32_t, std::string> tablespaces;
  uint64_t bytes = 0;
};

struct CloneAttach {
  std::string session;
};

struct CloneGiveUp {
  std::string session;
  absl::Status why;
};

// A part of a file that lies in a frame.
struct ClonePiece {
  std::string path;
  uint64_t size = 0;  // of the file when it was opened
  int64_t mtime = 0;
  uint32_t mode = 0600;
  uint64_t file_offset = 0;
  uint32_t frame_offset = 0;
  uint32_t length = 0;
  uint32_t crc32c = 0;
  bool whole = false;    // the file is this piece and ends here
  bool checked = false;  // consists of pages with checksums, the first of them `first_block`
  base::BlockNumber first_block = 0;
  // Blocks that were being written: their checksums do not match, and WAL replay gives them.
  std::vector<base::BlockNumber> unsettled;
  friend bool operator==(const ClonePiece&, const ClonePiece&) = default;
};
struct CloneData {
  std::vector<ClonePiece> pieces;
};

// Everything was sent; what is written last.
struct CloneEnd {
  std::string control;  // pg_control
  std::string backup_label, tablespace_map;
  base::TimelineId timeline = 0;
  base::Lsn stop_lsn;
  uint64_t files = 0, bytes = 0;
};

std::string Encode(const CloneHello& message);
std::string Encode(const CloneWelcome& message);
std::string Encode(const CloneBegin& message);
std::string Encode(const CloneStatus& message);
std::string Encode(const ClonePlan& message);
std::string Encode(const CloneAttach& message);
std::string Encode(const CloneGiveUp& message);
std::string Encode(const CloneData& message);
std::string Encode(const CloneEnd& message);
// Of kFailure: code, reason and text, cut to fit.
std::string EncodeFailure(const absl::Status& status);

// DATA_LOSS for a body that is not exactly one message of the kind, with every field in its limits;
// paths are relative and without "..".
absl::StatusOr<CloneHello> DecodeCloneHello(std::string_view body);
absl::StatusOr<CloneWelcome> DecodeCloneWelcome(std::string_view body);
absl::StatusOr<CloneBegin> DecodeCloneBegin(std::string_view body);
absl::StatusOr<CloneStatus> DecodeCloneStatus(std::string_view body);
absl::StatusOr<ClonePlan> DecodeClonePlan(std::string_view body);
absl::StatusOr<CloneAttach> DecodeCloneAttach(std::string_view body);
absl::StatusOr<CloneGiveUp> DecodeCloneGiveUp(std::string_view body);
absl::StatusOr<CloneData> DecodeCloneData(std::string_view body);
absl::StatusOr<CloneEnd> DecodeCloneEnd(std::string_view body);
// The status that a kFailure carries; never OK.
absl::Status DecodeFailure(std::string_view body);

// Relative, without empty, "." or ".." parts, at most 1024 bytes: safe below a directory.
bool IsSafePath(std::string_view path);

}  // namespace metal::backup
