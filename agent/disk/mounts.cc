// Mount table: parsing of mountinfo and the look-up by path. Declared in inventory.h.
#include <charconv>

#include "agent/disk/inventory.h"

namespace metal::disk {
namespace {

std::vector<std::string_view> Split(std::string_view line) {
  std::vector<std::string_view> fields;
  while (!line.empty()) {
    const size_t end = line.find(' ');
    if (end != 0) fields.push_back(line.substr(0, end));
    if (end == std::string_view::npos) break;
    line.remove_prefix(end + 1);
  }
  return fields;
}

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// The kernel writes space, tab, newline and backslash as \ooo.
std::string DecodeOctal(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && IsOctal(text[i + 1]) && IsOctal(text[i + 2]) &&
        IsOctal(text[i + 3])) {
      const int value = (text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0');
      decoded.push_back(static_cast<char>(value));
      i += 3;
    } else {
      decoded.push_back(text[i]);
    }
  }
  return decoded;
}

bool ParseNumber(std::string_view text, unsigned& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"
std::optional<Mount> ParseLine(std::string_view line) {
  const std::vector<std::string_view> fields = Split(line);
  size_t separator = 6;  // after six fixed fields and any number of optional ones
  while (separator < fields.size() && fields[separator] != "-") ++separator;
  if (separator + 2 >= fields.size()) return std::nullopt;
  Mount mount;
  const size_t colon = fields[2].find(':');
  if (colon == std::string_view::npos || !ParseNumber(fields[2].substr(0, colon), mount.major) ||
      !ParseNumber(fields[2].substr(colon + 1), mount.minor)) {
    return std::nullopt;
  }
  ParseNumber(fields[0], mount.id);
  mount.root = DecodeOctal(fields[3]);
  mount.mount_point = DecodeOctal(fields[4]);
  mount.filesystem = DecodeOctal(fields[separator + 1]);
  mount.source = DecodeOctal(fields[separator + 2]);
  return mount;
}

bool IsInside(std::string_view path, std::string_view directory) {
  if (directory == "/") return !path.empty() && path.front() == '/';
  return path.substr(0, directory.size()) == directory &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

}  // namespace

std::vector<Mount> ParseMountInfo(std::string_view text) {
  std::vector<Mount> mounts;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (auto mount = ParseLine(text.substr(0, end))) mounts.push_back(*std::move(mount));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return mounts;
}

std::optional<Mount> FindMount(const std::vector<Mount>& mounts, std::string_view path) {
  const Mount* best = nullptr;
  for (const Mount& mount : mounts) {
    if (!IsInside(path, mount.mount_point)) continue;
    if (best == nullptr || mount.mount_point.size() >= best->mount_point.size()) best = &mount;
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

}  // namespace metal::disk
