#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/duration.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/run_operation.h"
#include "tools/metalctl/terminal.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {
namespace {

std::string Join(const google::protobuf::RepeatedPtrField<std::string>& words,
                 const char* separator) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : separator) + word;
  return out;
}

std::string ProbeWord(v1::ProbeState state) {
  return EnumWord(v1::ProbeState_Name(state), "PROBE_STATE_");
}

// The worst of the disk's probes.
std::string DiskHealth(const v1::DiskStatus& disk) {
  v1::ProbeState worst = v1::PROBE_STATE_UNSPECIFIED;
  for (const auto& probe : disk.probes()) {
    if (probe.state() == v1::PROBE_STATE_UNSUPPORTED && worst != v1::PROBE_STATE_UNSPECIFIED)
      continue;
    worst = worst == v1::PROBE_STATE_UNSUPPORTED ? probe.state() : std::max(worst, probe.state());
  }
  return ProbeWord(worst);
}

std::string SmartText(const v1::SmartStatus& smart) {
  if (!smart.supported()) return "unsupported: " + smart.unsupported_reason();
  return fmt::format(
      "warning 0x{:02x}, {} spare {}% (threshold {}%), used {}%, media errors {}, power on {} h",
      smart.critical_warning(),
      smart.has_temperature_celsius() ? fmt::format("{} °C,", smart.temperature_celsius()) : "",
      smart.available_spare_percent(), smart.available_spare_threshold_percent(),
      smart.percentage_used(), smart.media_errors(), smart.power_on_hours());
}

void AddLatency(TextTable& table, const v1::ProbeStatus& probe, const char* what,
                const v1::LatencySummary& latency) {
  if (latency.count() == 0) return;
  table.AddRow({probe.role(), what, std::to_string(latency.count()), FormatLatency(latency.p50()),
                FormatLatency(latency.p90()), FormatLatency(latency.p99()),
                FormatLatency(latency.p999()), FormatLatency(latency.p9999()),
                FormatLatency(latency.max())});
}

// "12.3 MB/s read (310/s, 80 µs), …, busy 12 %".
std::string ActivityText(const v1::DiskActivity& activity) {
  const auto part = [](double bytes, double requests, const char* what, bool has_latency,
                       const google::protobuf::Duration& latency) {
    std::string text =
        fmt::format("{}/s {} ({:.0f}/s", FormatBytes(static_cast<int64_t>(bytes)), what, requests);
    if (has_latency) text += ", " + FormatDuration(latency);
    return text + ")";
  };
  return fmt::format("{}, {}, busy {:.0f} %",
                     part(activity.read_bytes_per_second(), activity.reads_per_second(), "read",
                          activity.has_read_latency(), activity.read_latency()),
                     part(activity.write_bytes_per_second(), activity.writes_per_second(),
                          "written", activity.has_write_latency(), activity.write_latency()),
                     activity.busy() * 100);
}

std::string SpeedText(const v1::DiskSlowness& slowness) {
  if (slowness.learning()) return "not judged yet: too little history";
  if (slowness.state() == v1::SLOW_STATE_NORMAL) return "as it was";
  return fmt::format("{}: {:.1f} times slower than expected at this load, confidence {:.2f}",
                     slowness.state() == v1::SLOW_STATE_SLOW ? "slow" : "suspected",
                     slowness.factor(), slowness.confidence());
}

// "86.2 %": of bytes, or of inodes when they are nearer to their end.
std::string UsedText(const v1::DiskStatus& disk) {
  if (!disk.has_space()) return "";
  return fmt::format("{:.0f} %",
                     std::max(disk.space().used_percent(), disk.space().inodes_used_percent()));
}

std::string ForecastText(const char* span, bool known, double growth, bool fills,
                         const google::protobuf::Duration& full_in) {
  if (!known) return fmt::format("by the last {}: not known yet", span);
  std::string text = fmt::format("by the last {}: {}{}/day", span, growth < 0 ? "-" : "+",
                                 FormatBytes(static_cast<int64_t>(std::abs(growth) * 24 * 3600)));
  return text + (fills ? ", full in " + FormatDuration(full_in) : ", does not fill");
}

std::string SpaceText(const v1::SpaceStatus& space) {
  std::string text = fmt::format("{:.1f} % used", space.used_percent());
  if (space.has_inodes_used_percent()) {
    text += fmt::format(", inodes {:.1f} %", space.inodes_used_percent());
  }
  if (space.level_percent() > 0) text += fmt::format(", above {} %", space.level_percent());
  if (space.tight()) text += ", full";
  return text + fmt::format("; {} are to stay free", FormatBytes(space.least_free_bytes()));
}

}  // namespace

std::string DiskText(const v1::DiskStatus& disk) {
  FactList facts;
  facts.Add("disk", disk.device());
  facts.Add("holds", Join(disk.roles(), ", "));
  facts.Add("stack", Join(disk.stack(), " → "));
  facts.Add("model", disk.model());
  facts.Add("serial", disk.serial());
  facts.Add("WWN", disk.wwid());
  facts.Add("firmware", disk.firmware());
  facts.Add("transport", disk.transport());
  facts.Add("size", FormatBytes(disk.size_bytes()));
  facts.Add("scheduler", disk.scheduler());
  facts.Add("write cache", disk.write_cache());
  facts.Add("filesystem", fmt::format("{} on {}, {} free of {}", disk.filesystem(),
                                      disk.mount_point(), FormatBytes(disk.filesystem_free_bytes()),
                                      FormatBytes(disk.filesystem_size_bytes())));
  if (disk.has_space()) {
    const v1::SpaceStatus& space = disk.space();
    facts.Add("space", SpaceText(space));
    facts.Add("forecast", ForecastText("hours", space.has_recent_growth(), space.recent_growth(),
                                       space.has_full_in_recent(), space.full_in_recent()) +
                              "; " +
                              ForecastText("days", space.has_long_growth(), space.long_growth(),
                                           space.has_full_in_long(), space.full_in_long()));
  }
  facts.Add("smart", SmartText(disk.smart()));
  if (disk.has_activity()) facts.Add("activity", ActivityText(disk.activity()));
  if (disk.has_slowness()) facts.Add("speed", SpeedText(disk.slowness()));
  for (const auto& probe : disk.probes()) {
    std::string text = ProbeWord(probe.state());
    if (!probe.state_reason().empty()) text += ": " + probe.state_reason();
    if (probe.has_oldest_outstanding()) {
      text += fmt::format(" (oldest probe waits {})", FormatDuration(probe.oldest_outstanding()));
    }
    facts.Add("probe " + probe.role(), text);
    facts.Add("  last error", probe.last_error());
  }
  std::string out = facts.ToString();
  TextTable table({"PROBE", "I/O", ">COUNT", ">P50", ">P90", ">P99", ">P99.9", ">P99.99", ">MAX"});
  for (const auto& probe : disk.probes()) {
    AddLatency(table, probe, "read", probe.read());
    AddLatency(table, probe, "write", probe.write());
  }
  if (!table.empty()) out += "\n" + table.ToString();
  return out;
}

std::string PressureText(const v1::HostPressure& pressure) {
  std::string text;
  const auto add = [&](const char* what, bool known, const v1::Pressure& of) {
    if (!known) return;
    text += fmt::format("{}{} {:.0f} %", text.empty() ? "" : ", ", what, of.some_10s() * 100);
    if (of.full_10s() >= 0.005) text += fmt::format(" (all {:.0f} %)", of.full_10s() * 100);
  };
  add("I/O", pressure.has_io(), pressure.io());
  add("memory", pressure.has_memory(), pressure.memory());
  add("CPU", pressure.has_cpu(), pressure.cpu());
  return text.empty() ? "" : text + " of the last 10 s somebody waited";
}

namespace {

std::string PressureLine(const v1::HostPressure& pressure) {
  FactList facts;
  facts.Add("pressure", PressureText(pressure));
  const std::string text = facts.ToString();
  return text.empty() ? "" : "\n" + text;
}

}  // namespace

int ListDisks(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::ListDisksResponse response;
  if (auto status = client.storage->ListDisks(&context, {}, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  TextTable table({"DISK", "HOLDS", "?MODEL", "?TRANSPORT", "?>SIZE", "?FILESYSTEM", ">FREE",
                   ">USED", "HEALTH", "SMART"});
  for (const auto& disk : response.disks()) {
    table.AddRow({disk.device(), Join(disk.roles(), ","), disk.model(), disk.transport(),
                  FormatBytes(disk.size_bytes()), disk.filesystem(),
                  FormatBytes(disk.filesystem_free_bytes()), UsedText(disk), DiskHealth(disk),
                  !disk.smart().supported() ? "unsupported"
                  : disk.smart().critical_warning() == 0
                      ? "ok"
                      : fmt::format("warning 0x{:02x}", disk.smart().critical_warning())});
  }
  fmt::print("{}", table.empty() ? "no disks known yet\n" : table.ToString(OutputOptions().width));
  return kExitOk;
}

int ShowDiskHealth(const Client& client, const std::string& device) {
  if (device.empty()) {
    grpc::ClientContext context;
    client.Prepare(context);
    v1::ListDisksResponse response;
    if (auto status = client.storage->ListDisks(&context, {}, &response); !status.ok()) {
      return client.Fail(status);
    }
    if (client.json()) {
      Client::PrintJson(response);
    } else {
      for (int i = 0; i < response.disks_size(); ++i) {
        fmt::print("{}{}", i == 0 ? "" : "\n", DiskText(response.disks(i)));
      }
      fmt::print("{}", PressureLine(response.pressure()));
    }
    return kExitOk;
  }
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetStorageHealthRequest request;
  request.set_name(device.rfind("disks/", 0) == 0 ? device : "disks/" + device);
  v1::GetStorageHealthResponse response;
  if (auto status = client.storage->GetStorageHealth(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  fmt::print("{}{}", DiskText(response.disk()), PressureLine(response.pressure()));
  for (const auto& fault : response.faults()) fmt::print("{}", FaultText(fault));
  return kExitOk;
}

int WatchDisks(const Client& client) {
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  return FollowStream<v1::WatchStorageHealthResponse>(
      client,
      {.due = absl::Seconds(10), .answers = [&] { return AgentAnswers(client); }, .worked = false},
      [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
        return client.storage->PrepareAsyncWatchStorageHealth(context, {}, queue);
      },
      [&](const v1::WatchStorageHealthResponse& response) {
        if (client.json()) return Client::PrintJson(response, false);
        std::string text;
        for (const auto& disk : response.disks()) text += DiskText(disk) + "\n";
        text += PressureLine(response.pressure());
        for (const auto& fault : response.faults()) text += FaultText(fault);
        fmt::print("{}", terminal ? ScreenText(text) : text + "---\n");
        std::fflush(stdout);
      },
      [](const grpc::Status&) { return false; });
}

int ShowDriveLogs(const Client& client, const std::string& device) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetDriveLogsRequest request;
  request.set_name(device.rfind("disks/", 0) == 0 ? device : "disks/" + device);
  v1::GetDriveLogsResponse response;
  if (auto status = client.storage->GetDriveLogs(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  FactList facts;
  if (response.has_read_time()) facts.Add("read", FormatTime(response.read_time()));
  facts.Add("not read", response.unavailable_reason());
  fmt::print("{}", facts.ToString());
  for (const v1::DriveLog& log : response.logs()) {
    if (log.records().empty()) fmt::print("\n{}: no entries\n", log.name());
    for (const v1::DriveLogRecord& record : log.records()) {
      FactList fields;
      for (const v1::DriveLogField& field : record.fields())
        fields.Add(field.name(), field.value());
      fmt::print("\n{}\n{}", log.name(), fields.ToString(2));
    }
  }
  return kExitOk;
}

int ProbeDisk(const Client& client, const ProbeOptions& options) {
  v1::RunStorageProbeRequest request;
  request.set_request_id(NewRequestId());
  request.set_role(options.role);
  request.set_reads(options.reads);
  request.set_writes(options.writes);
  const auto show = [](const v1::Operation& operation) {
    const auto fact = [&](const char* name) {
      const auto found = operation.result().find(name);
      double microseconds = 0;
      if (found == operation.result().end() || !absl::SimpleAtod(found->second, &microseconds)) {
        return std::string("-");
      }
      return FormatLatency(DurationProto(absl::Microseconds(microseconds)));
    };
    TextTable table({"I/O", ">P50", ">P99", ">MAX"});
    table.AddRow(
        {"read 4 KiB O_DIRECT", fact("read_p50_us"), fact("read_p99_us"), fact("read_max_us")});
    table.AddRow({"write 4 KiB O_DIRECT|O_DSYNC", fact("write_p50_us"), fact("write_p99_us"),
                  fact("write_max_us")});
    fmt::print("{}", table.ToString());
  };
  return RunOperation(client, *client.storage, &v1::StorageService::Stub::RunStorageProbe, request,
                      options.follow, show);
}

int AcknowledgeFault(const Client& client, const AcknowledgeOptions& options) {
  v1::AcknowledgeFaultRequest request;
  request.set_fault_class(options.fault_class);
  request.set_subject(options.subject);
  request.set_device(options.device);
  request.set_reason(options.reason);
  request.set_force(options.force);
  grpc::ClientContext context;
  client.Prepare(context);
  v1::AcknowledgeFaultResponse response;
  if (auto status = client.storage->AcknowledgeFault(&context, request, &response); !status.ok()) {
    return client.Fail(status);
  }
  if (client.json()) {
    Client::PrintJson(response);
    return kExitOk;
  }
  for (const v1::Fault& fault : response.faults()) fmt::print("{}", FaultText(fault));
  return kExitOk;
}

}  // namespace metal::ctl
