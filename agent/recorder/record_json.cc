#include "agent/recorder/record_json.h"

#include <algorithm>

#include "agent/recorder/json_text.h"

namespace metal::recorder {
namespace {

// Facts that the agent or a drive counted are numbers.
bool IsNumber(RecordKind kind, std::string_view name, std::string_view text) {
  if (name == "serial" || name == "device" || name == "line") return false;
  if (kind == RecordKind::kDrive && text.starts_with('-')) text.remove_prefix(1);
  return kind != RecordKind::kEvent && kind != RecordKind::kControl && !text.empty() &&
         text.size() <= 15 && (text.size() == 1 || text.front() != '0') &&
         std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::string_view KernelLineOf(const Record& record) {
  constexpr std::string_view kBegin = "kernel: ";
  if (record.kind == RecordKind::kKernel) return record.Find("line");
  const std::string_view message = record.Find("message");
  if (record.Find("type") == "disk.kernel_line" && message.starts_with(kBegin))
    return message.substr(kBegin.size());
  return record.Find("@kernel_line");
}

std::string_view SeverityName(observe::Severity severity) {
  switch (severity) {
    case observe::Severity::kInfo:
      return "info";
    case observe::Severity::kWarning:
      return "warning";
    case observe::Severity::kError:
      return "error";
    case observe::Severity::kCritical:
      return "critical";
  }
  return "unknown";
}

std::string TimeText(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", time, absl::UTCTimeZone());
}

std::string RecordLine(const Record& record, const Redactor& redactor) {
  JsonObject line, attributes;
  line.AddRaw("sequence", record.sequence == 0 ? "null" : std::to_string(record.sequence));
  line.Add("time", TimeText(record.time));
  line.Add("since_boot_us", absl::ToInt64Microseconds(record.since_boot));
  line.Add("kind", RecordKindName(record.kind));
  if (record.cut) line.AddRaw("cut", "true");
  bool any = false;
  for (const auto& [name, value] : record.fields) {
    if (name.starts_with('@')) {
      const std::string plain = name.substr(1);
      attributes.Add(plain, redactor.CleanValue(plain, value));
      any = true;
    } else if (IsNumber(record.kind, name, value)) {
      line.AddRaw(name, value);
    } else {
      line.Add(name, redactor.Clean(value));
    }
  }
  if (any) line.AddRaw("attributes", attributes.Text());
  return line.Text() + "\n";
}

std::string EventLine(const observe::Event& event, const Redactor& redactor) {
  JsonObject line, attributes;
  line.Add("id", static_cast<int64_t>(event.id)).Add("time", TimeText(event.time));
  line.Add("severity", SeverityName(event.severity)).Add("type", event.type);
  line.Add("subject", redactor.Clean(event.subject)).Add("message", redactor.Clean(event.message));
  for (const auto& [name, value] : event.attributes)
    attributes.Add(name, redactor.CleanValue(name, value));
  return line.AddRaw("attributes", attributes.Text()).Text() + "\n";
}

}  // namespace metal::recorder
