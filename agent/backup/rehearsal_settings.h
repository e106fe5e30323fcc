// The settings that keep the server of a rehearsal to itself. They are given on its command line,
// which wins over every file of the copy, whatever its source has in them. Threading: pure
// function.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace metal::backup {

struct RehearsalPlaces {
  std::string data_directory, socket_directory, hba_file;
};

// Name and value. `major`: 13 or later; only settings that this version has.
std::vector<std::pair<std::string, std::string>> RehearsalSettings(int major,
                                                                   const RehearsalPlaces& places);

}  // namespace metal::backup
