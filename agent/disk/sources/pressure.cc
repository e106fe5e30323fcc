#include "agent/disk/sources/pressure.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "agent/base/file.h"

namespace metal::disk {
namespace {

constexpr size_t kMaxText = 4096;

// "avg10=1.25" in a line → 0.0125.
std::optional<double> Share(std::string_view line, std::string_view key) {
  const size_t at = line.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  double percent = 0;
  const char* const begin = line.data() + at + key.size();
  const auto [end, error] = std::from_chars(begin, line.data() + line.size(), percent);
  if (error != std::errc() || !(percent >= 0)) return std::nullopt;
  return std::min(percent, 100.0) / 100;
}

}  // namespace

std::optional<observe::Pressure> ParsePressure(std::string_view text) {
  observe::Pressure pressure;
  bool found = false;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    const auto ten = Share(line, " avg10=");
    const auto sixty = Share(line, " avg60=");
    if (!ten || !sixty) continue;
    if (line.starts_with("some")) {
      pressure.some_10s = *ten;
      pressure.some_60s = *sixty;
      found = true;
    } else if (line.starts_with("full")) {
      pressure.full_10s = *ten;
      pressure.full_60s = *sixty;
    }
  }
  if (!found) return std::nullopt;
  return pressure;
}

observe::PressureSection ReadPressure(const SysRoots& roots) {
  const auto read = [&](const char* name) {
    const auto text = base::ReadFile(roots.proc + "/pressure/" + name, kMaxText);
    return text.ok() ? ParsePressure(*text) : std::nullopt;
  };
  observe::PressureSection section;
  section.io = read("io");
  section.memory = read("memory");
  section.cpu = read("cpu");
  return section;
}

}  // namespace metal::disk
