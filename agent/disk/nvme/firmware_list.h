// Firmware of drives that is known to fail, most of it at an age: drives that were bought together
// then fail together.
// Source: named in each row of the table (firmware_list.cc).
// Threading: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace metal::disk {

struct BadFirmware {
  std::string_view model;     // what the model's name starts with
  std::string_view firmware;  // this one alone; empty: every one before `mended`
  std::string_view mended;    // the first without the fault
  uint64_t hours = 0;         // powered on, when it fails; 0: at no certain age
  std::string_view failure;   // "stops for ever and loses its data"
  std::string_view source;
};

// The row that speaks of this drive, or null. Rows live as long as the program.
const BadFirmware* FindBadFirmware(std::string_view model, std::string_view firmware);

// Whether to say it now: at once when no age is known, of the row or of the drive, else from 30
// days before the age on.
bool IsBadFirmwareDue(const BadFirmware& row, std::optional<uint64_t> power_on_hours);

}  // namespace metal::disk
