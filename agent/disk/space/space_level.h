// The levels at which somebody is told how full a file system is.
// Threading: not thread-safe; no I/O.
#pragma once

#include <array>

namespace metal::disk {

inline constexpr std::array<int, 5> kSpaceLevels = {60, 75, 85, 90, 95};  // percent

// A level is reached at its number, and left 2 points below it: a checkpoint's WAL that comes and
// goes tells nothing twice.
class SpaceLevel {
 public:
  // The highest level that holds now; 0: none.
  int Observe(double used_percent);
  int level() const { return level_; }

 private:
  int level_ = 0;
};

}  // namespace metal::disk
