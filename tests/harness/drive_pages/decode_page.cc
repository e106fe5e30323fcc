// Decodes pages of a drive with the agent's decoders and prints them as JSON, for tests that
// compare them with what other programs make of the same bytes. Usage: decode_page DIRECTORY its
// files are named as drive_shim.cc names them
#include <fstream>
#include <iterator>
#include <string>

#include "agent/base/status.h"
#include "agent/disk/nvme/log_fields.h"
#include "fmt/format.h"

namespace metal::disk {
namespace {

std::vector<std::byte> ReadPage(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto* const first = reinterpret_cast<const std::byte*>(bytes.data());
  return {first, first + bytes.size()};
}

// False with a line on standard error when the page is there and cannot be decoded.
template <typename T, typename Decode>
bool Load(const std::string& path, Decode decode, std::optional<T>& log) {
  const auto page = ReadPage(path);
  if (page.empty()) return true;
  absl::StatusOr<T> decoded = decode(std::span(page));
  if (!decoded.ok()) {
    fmt::print(stderr, "{}: {}\n", path, decoded.status().ToString());
    return false;
  }
  log = *std::move(decoded);
  return true;
}

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text)
    out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out;
}

int Run(const std::string& directory) {
  DriveLogs logs;
  const bool loaded = Load(directory + "/identify-01", DecodeIdentifyController, logs.controller) &&
                      Load(directory + "/identify-00", DecodeIdentifyNamespace, logs.name_space) &&
                      Load(directory + "/log-02", DecodeSmartLog, logs.smart) &&
                      Load(directory + "/log-01", DecodeErrorLog, logs.errors) &&
                      Load(directory + "/log-06", DecodeSelfTestLog, logs.self_tests) &&
                      Load(directory + "/log-0d", DecodePersistentEvents, logs.events) &&
                      Load(directory + "/log-c0", DecodeOcpLog, logs.ocp) &&
                      Load(directory + "/log-d0", DecodeAwsLog, logs.aws);
  if (!loaded) return 1;
  fmt::print("{{");
  const char* between_tables = "";
  for (const LogTable& table : TablesOfLogs(logs)) {
    fmt::print("{}\"{}\":[", std::exchange(between_tables, ","), table.name);
    const char* between_records = "";
    for (const LogRecord& record : table.records) {
      fmt::print("{}{{", std::exchange(between_records, ","));
      const char* between_fields = "";
      for (const LogField& field : record.fields) {
        fmt::print("{}\"{}\":\"{}\"", std::exchange(between_fields, ","), field.name,
                   Escaped(field.value));
      }
      fmt::print("}}");
    }
    fmt::print("]");
  }
  fmt::print("}}\n");
  return 0;
}

}  // namespace
}  // namespace metal::disk

int main(int argc, char** argv) {
  if (argc == 2) return metal::disk::Run(argv[1]);
  fmt::print(stderr, "usage: decode_page DIRECTORY\n");
  return 2;
}
