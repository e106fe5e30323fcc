#include "agent/recorder/timeline.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/numbers.h"
#include "agent/recorder/json_text.h"
#include "agent/recorder/record_json.h"
#include "fmt/format.h"

namespace metal::recorder {
namespace {

constexpr std::string_view kPlace = "METAL_TIMELINE_DATA";

int64_t Number(const Record& record, std::string_view name) {
  const std::string_view text = record.Find(name);
  int64_t number = 0;
  return absl::SimpleAtoi(absl::string_view(text.data(), text.size()), &number) ? number : 0;
}

void Keep(std::deque<std::string>& rows, std::string row, size_t most) {
  rows.push_back(std::move(row));
  if (rows.size() > most) rows.pop_front();
}

std::string Array(const std::deque<std::string>& rows) {
  return fmt::format("[{}]", fmt::join(rows, ",\n"));
}

std::deque<std::string> Joined(std::initializer_list<const std::deque<std::string>*> parts) {
  std::deque<std::string> all;
  for (const auto* part : parts) all.insert(all.end(), part->begin(), part->end());
  return all;
}

// Calls that only look, and answered at once: they would hide the others.
bool IsRoutine(std::string_view rpc, std::string_view code, int64_t microseconds) {
  const std::string_view method = rpc.substr(std::min(rpc.find('/') + 1, rpc.size()));
  const bool looks = method.starts_with("Get") || method.starts_with("List") ||
                     method.starts_with("Watch") || method == "RenewLease";
  return looks && code == "OK" && (microseconds < 100'000 || method.starts_with("Watch"));
}

}  // namespace

void Timeline::Add(const Record& record) {
  switch (record.kind) {
    case RecordKind::kProbe:
      return AddProbe(record);
    case RecordKind::kEvent:
      return AddEvent(record);
    case RecordKind::kDrive:
      return AddCounters(record);
    case RecordKind::kKernel:
      return AddKernelLine(record);
    case RecordKind::kRpc:
      return AddCall(record);
    case RecordKind::kControl: {
      std::string text;
      for (const auto& [name, value] : record.fields) {
        if (name != "moment") text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, value);
      }
      JsonObject row;
      row.Add("t", absl::ToUnixMillis(record.time)).Add("moment", record.Find("moment"));
      return Keep(controls_, row.Add("text", redactor_.Clean(text)).Text(), kControlsMost);
    }
    case RecordKind::kStart:
    case RecordKind::kDropped: {
      const std::string text = record.kind == RecordKind::kStart
                                   ? fmt::format("agent {} began, process {}",
                                                 record.Find("version"), record.Find("pid"))
                                   : fmt::format("{} records found no room", record.Find("count"));
      JsonObject row;
      return Keep(starts_, row.Add("t", absl::ToUnixMillis(record.time)).Add("text", text).Text(),
                  kControlsMost);
    }
  }
}

// A row: time in ms; then µs: median of reads, worst read, median of writes, worst write, oldest on
// its way.
void Timeline::AddProbe(const Record& record) {
  const std::string role(record.Find("role"));
  if (!probes_.contains(role) && probes_.size() >= kRolesMost) return;
  Keep(probes_[role],
       fmt::format("[{},{},{},{},{},{}]", absl::ToUnixMillis(record.time),
                   Number(record, "read_p50_us"), Number(record, "read_max_us"),
                   Number(record, "write_p50_us"), Number(record, "write_max_us"),
                   Number(record, "oldest_us")),
       kProbesMost);
}

void Timeline::AddEvent(const Record& record) {
  JsonObject row, attributes;
  const std::string kernel = redactor_.Clean(KernelLineOf(record));
  for (const auto& [name, value] : record.fields) {
    if (!name.starts_with('@')) continue;
    const std::string plain = name.substr(1);
    attributes.Add(plain, redactor_.CleanValue(plain, value));
  }
  const std::string message = redactor_.Clean(record.Find("message"));
  row.Add("t", absl::ToUnixMillis(record.time)).Add("type", record.Find("type"));
  row.Add("severity", record.Find("severity"));
  row.Add("subject", redactor_.Clean(record.Find("subject"))).Add("message", message);
  if (!kernel.empty()) row.Add("kernel", kernel);
  Keep(events_, row.AddRaw("attributes", attributes.Text()).Text(), kEventsMost);
}

// An event too: the page puts it among those of disks. "media_errors 3 (+1), …".
void Timeline::AddCounters(const Record& record) {
  constexpr std::string_view kEnding = "_delta";
  std::string text;
  for (const auto& [name, value] : record.fields) {
    if (!name.ends_with(kEnding)) continue;
    const std::string_view counter = std::string_view(name).substr(0, name.size() - kEnding.size());
    text += fmt::format("{}{} {} ({}{})", text.empty() ? "" : ", ", counter, record.Find(counter),
                        value.starts_with('-') ? "" : "+", value);
  }
  JsonObject row, attributes;
  attributes.Add("serial", redactor_.Clean(record.Find("serial")));
  row.Add("t", absl::ToUnixMillis(record.time)).Add("type", "disk.counters");
  row.Add("severity", record.Find("severity"))
      .Add("subject", redactor_.Clean(record.Find("device")));
  row.Add("message", text).AddRaw("attributes", attributes.Text());
  Keep(counters_, row.Text(), kCountersMost);
}

// As the events of the first lines of a minute, which are among the events.
void Timeline::AddKernelLine(const Record& record) {
  const std::string line = redactor_.Clean(record.Find("line"));
  const std::string_view again = record.Find("again");
  JsonObject row, attributes;
  attributes.Add("class", record.Find("class"));
  if (!again.empty()) attributes.Add("again", again);
  row.Add("t", absl::ToUnixMillis(record.time)).Add("type", "disk.kernel_line");
  row.Add("severity", "warning").Add("subject", redactor_.Clean(record.Find("subject")));
  row.Add("message", again.empty() ? "kernel: " + line
                                   : fmt::format("{} times more within a minute: {}", again, line));
  row.Add("kernel", line).AddRaw("attributes", attributes.Text());
  Keep(lines_, row.Text(), kLinesMost);
}

void Timeline::AddCall(const Record& record) {
  const int64_t took = Number(record, "duration_us");
  if (IsRoutine(record.Find("rpc"), record.Find("code"), took)) return;
  JsonObject row;
  row.Add("t", absl::ToUnixMillis(record.time)).Add("us", took);
  for (const std::string_view name : {"rpc", "peer", "caller", "subject", "term", "code"})
    row.Add(name, redactor_.Clean(record.Find(name)));
  Keep(calls_, row.Text(), kCallsMost);
}

std::string Timeline::Page(const TimelineHead& head) const {
  JsonObject probes;
  for (const auto& [role, rows] : probes_) probes.AddRaw(role, Array(rows));
  std::deque<std::string> faults;
  for (const observe::Fault& fault : head.faults) {
    JsonObject row;
    row.Add("fault_class", fault.fault_class).Add("subject", redactor_.Clean(fault.subject));
    faults.push_back(row.Add("message", redactor_.Clean(fault.message)).Text());
  }
  JsonObject data;
  data.Add("node", head.node).Add("cluster", head.cluster).Add("versions", head.versions);
  data.Add("reason", redactor_.Clean(head.reason));
  data.Add("captured", absl::ToUnixMillis(head.captured)).AddRaw("faults", Array(faults));
  data.AddRaw("probes", probes.Text())
      .AddRaw("events", Array(Joined({&events_, &lines_, &counters_})));
  data.AddRaw("calls", Array(calls_)).AddRaw("controls", Array(controls_));
  data.AddRaw("starts", Array(starts_));
  std::string page = kTimelinePage;
  return page.replace(page.find(kPlace), kPlace.size(), data.Text());
}

}  // namespace metal::recorder
