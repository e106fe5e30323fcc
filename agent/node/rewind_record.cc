#include "agent/node/rewind_record.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <map>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/text_map.h"

namespace metal::node {
namespace {

constexpr RewindStage kStages[] = {RewindStage::kRunning, RewindStage::kRewound,
                                   RewindStage::kStarted};

std::string RecordPath(const std::string& state_dir) {
  return base::JoinPath(RewindDirectory(state_dir), "record");
}

template <typename Number>
bool ParseWhole(const std::string& text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string_view RewindStageName(RewindStage stage) {
  switch (stage) {
    case RewindStage::kRunning:
      return "running";
    case RewindStage::kRewound:
      return "rewound";
    case RewindStage::kStarted:
      return "started";
  }
  return "unknown";
}

std::string RewindDirectory(const std::string& state_dir) {
  return base::JoinPath(state_dir, "rewind");
}

absl::StatusOr<RewindRecord> LoadRewindRecord(const std::string& state_dir) {
  const std::string path = RecordPath(state_dir);
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path, 64 * base::kKiB));
  std::map<std::string, std::string> fields = base::DecodeMap(text);
  RewindRecord record;
  bool known = false;
  for (const RewindStage stage : kStages) {
    if (fields["stage"] != RewindStageName(stage)) continue;
    record.stage = stage;
    known = true;
  }
  const auto floor = base::Lsn::Parse(fields["floor"]);
  if (!known || !floor || !ParseWhole(fields["system_identifier"], record.system_identifier) ||
      !ParseWhole(fields["source_timeline"], record.source_timeline)) {
    return base::Error(absl::StatusCode::kDataLoss, "{} cannot be read", path);
  }
  record.floor = *floor;
  record.source = fields["source"];
  record.repeatable = fields["repeatable"] == "true";
  return record;
}

absl::Status StoreRewindRecord(const std::string& state_dir, const RewindRecord& record) {
  return base::WriteFileDurably(
      RecordPath(state_dir),
      base::EncodeMap({{"stage", std::string(RewindStageName(record.stage))},
                       {"source", record.source},
                       {"system_identifier", fmt::format("{}", record.system_identifier)},
                       {"source_timeline", fmt::format("{}", record.source_timeline)},
                       {"repeatable", record.repeatable ? "true" : "false"},
                       {"floor", record.floor.ToString()}}));
}

absl::Status RemoveRewindRecord(const std::string& state_dir) {
  const std::string path = RecordPath(state_dir);
  if (unlink(path.c_str()) != 0) {
    if (errno != ENOENT) return base::ErrnoStatus(errno, "remove", path);
  } else {
    METAL_RETURN_IF_ERROR(base::SyncDirectory(RewindDirectory(state_dir)));
  }
  return base::RemoveTree(RewindDirectory(state_dir));
}

}  // namespace metal::node
