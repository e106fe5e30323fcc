#include "agent/pg/postmaster_pid.h"

#include <charconv>
#include <vector>

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  text = Trim(text);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return lines;
}

PostmasterStatus ParseStatus(std::string_view word) {
  if (word == "starting") return PostmasterStatus::kStarting;
  if (word == "stopping") return PostmasterStatus::kStopping;
  if (word == "ready") return PostmasterStatus::kReady;
  if (word == "standby") return PostmasterStatus::kStandby;
  return PostmasterStatus::kUnknown;
}

}  // namespace

absl::StatusOr<PostmasterPid> ParsePostmasterPid(std::string_view text) {
  const std::vector<std::string_view> lines = Lines(text);
  const std::optional<int> pid = lines.empty() ? std::nullopt : ParseNumber<int>(lines[0]);
  if (!pid || *pid == 0 || *pid == INT32_MIN) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "postmaster.pid: first line \"{}\" is no process id",
                       lines.empty() ? std::string_view() : lines[0].substr(0, 40));
  }
  PostmasterPid result;
  result.single_user = *pid < 0;
  result.pid = *pid < 0 ? -*pid : *pid;
  if (lines.size() > 1) result.data_directory = std::string(lines[1]);
  if (lines.size() > 2) {
    if (auto seconds = ParseNumber<int64_t>(lines[2])) {
      result.start_time = absl::FromUnixSeconds(*seconds);
    }
  }
  if (lines.size() > 3) result.port = ParseNumber<int>(lines[3]).value_or(0);
  if (lines.size() > 4) result.socket_dir = std::string(lines[4]);
  if (lines.size() > 5) result.listen_address = std::string(lines[5]);
  if (lines.size() > 7) result.status = ParseStatus(Trim(lines[7]));
  return result;
}

absl::StatusOr<std::optional<PostmasterPid>> ReadPostmasterPid(const std::string& data_dir) {
  const std::string path = base::JoinPath(data_dir, "postmaster.pid");
  absl::StatusOr<std::string> text = base::ReadFile(path, 64 * 1024);
  if (absl::IsNotFound(text.status())) return std::optional<PostmasterPid>();
  if (!text.ok()) return text.status();
  if (text->empty()) return std::optional<PostmasterPid>();
  absl::StatusOr<PostmasterPid> parsed = ParsePostmasterPid(*text);
  if (!parsed.ok()) return base::Annotate(parsed.status(), path);
  return std::optional<PostmasterPid>(*std::move(parsed));
}

}  // namespace metal::pg
