// The settings that keep the server of a rehearsal to itself. They are given on its command line,
// which wins over every file of the copy, whatever its source has in them. Threading: pure
// functions.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace metal::backup {

using Settings = std::vector<std::pair<std::string, std::string>>;

struct RehearsalPlaces {
  std::string data_directory, socket_directory, hba_file;
  uint64_t wal_segment_size = 16 << 20;
};

// Name and value. `major`: 13 or later; only settings that this version has.
Settings RehearsalSettings(int major, const RehearsalPlaces& places);

// Those that ALTER DATABASE or ALTER ROLE of the source may have set, which the command line does
// not outrank: each session sets them itself.
Settings RehearsalSessionSettings(int major);

}  // namespace metal::backup
