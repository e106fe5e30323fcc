#include "agent/disk/nvme/log_fields.h"

#include <concepts>
#include <optional>
#include <utility>

#include "fmt/format.h"

namespace metal::disk {
namespace {

// Builds one record.
class Fields {
 public:
  Fields& Add(std::string name, std::string_view text) {
    record_.fields.push_back({std::move(name), std::string(text)});
    return *this;
  }
  Fields& Add(std::string name, const std::string& text) {
    return Add(std::move(name), std::string_view(text));
  }
  Fields& Add(std::string name, std::integral auto number) {
    if constexpr (std::same_as<decltype(number), bool>) {
      return Add(std::move(name), std::string_view(number ? "true" : "false"));
    } else {
      return Add(std::move(name), std::to_string(number));
    }
  }
  // What the drive does not tell is left out.
  template <typename T>
  Fields& Add(std::string name, const std::optional<T>& value) {
    if (value) Add(std::move(name), *value);
    return *this;
  }

  LogRecord Take() { return std::move(record_); }

 private:
  LogRecord record_;
};

int64_t Microseconds(absl::Duration time) { return absl::ToInt64Microseconds(time); }

LogTable Single(std::string_view name, Fields& fields) {
  LogTable table;
  table.name = name;
  table.records.push_back(fields.Take());
  return table;
}

LogTable TableOf(const IdentifyController& id) {
  Fields fields;
  fields.Add("pci_vendor", id.pci_vendor)
      .Add("model", id.model)
      .Add("serial", id.serial)
      .Add("firmware", id.firmware)
      .Add("max_transfer_exponent", int{id.max_transfer_exponent})
      .Add("version",
           fmt::format("{}.{}.{}", id.version >> 16, (id.version >> 8) & 0xff, id.version & 0xff))
      .Add("can_self_test", id.can_self_test)
      .Add("has_log_offsets", id.has_log_offsets)
      .Add("has_persistent_event_log", id.has_persistent_event_log)
      .Add("lists_its_logs", id.lists_its_logs)
      .Add("error_log_entries", id.error_log_entries)
      .Add("warning_celsius", id.warning_celsius)
      .Add("critical_celsius", id.critical_celsius)
      .Add("total_capacity_bytes", id.total_capacity.value)
      .Add("extended_self_test_minutes", absl::ToInt64Minutes(id.extended_self_test))
      .Add("volatile_write_cache", id.volatile_write_cache)
      .Add("atomic_write_blocks", id.atomic_write_blocks)
      .Add("atomic_write_power_fail_blocks", id.atomic_write_power_fail_blocks);
  return Single("identify_controller", fields);
}

LogTable TableOf(const IdentifyNamespace& ns) {
  Fields fields;
  fields.Add("size_blocks", ns.size_blocks)
      .Add("capacity_blocks", ns.capacity_blocks)
      .Add("used_blocks", ns.used_blocks)
      .Add("block_size_bytes", ns.block_size)
      .Add("metadata_size_bytes", ns.metadata_size)
      .Add("protection_type", int{ns.protection})
      .Add("atomic_write_power_fail_blocks", ns.atomic_write_power_fail_blocks)
      .Add("globally_unique_id", ns.globally_unique_id);
  return Single("identify_namespace", fields);
}

Fields FieldsOf(const SmartLog& log) {
  Fields fields;
  fields.Add("critical_warning", int{log.critical_warning})
      .Add("temperature_celsius", log.temperature_celsius)
      .Add("available_spare_percent", log.available_spare_percent)
      .Add("available_spare_threshold_percent", log.available_spare_threshold_percent)
      .Add("percentage_used", log.percentage_used)
      .Add("endurance_group_warning", int{log.endurance_group_warning})
      .Add("host_read_bytes", log.host_read.value)
      .Add("host_written_bytes", log.host_written.value)
      .Add("host_read_commands", log.host_read_commands)
      .Add("host_write_commands", log.host_write_commands)
      .Add("controller_busy_minutes", absl::ToInt64Minutes(log.controller_busy))
      .Add("power_cycles", log.power_cycles)
      .Add("power_on_hours", log.power_on_hours)
      .Add("unsafe_shutdowns", log.unsafe_shutdowns)
      .Add("media_errors", log.media_errors)
      .Add("error_log_entries", log.error_log_entries)
      .Add("warning_temperature_minutes", absl::ToInt64Minutes(log.warning_temperature_time))
      .Add("critical_temperature_minutes", absl::ToInt64Minutes(log.critical_temperature_time));
  for (size_t i = 0; i < log.sensors_celsius.size(); ++i) {
    fields.Add(fmt::format("sensor_{}_celsius", i + 1), log.sensors_celsius.at(i));
  }
  for (size_t i = 0; i < log.thermal_transitions.size(); ++i) {
    fields.Add(fmt::format("thermal_{}_transitions", i + 1), log.thermal_transitions.at(i));
    fields.Add(fmt::format("thermal_{}_seconds", i + 1),
               absl::ToInt64Seconds(log.thermal_throttled.at(i)));
  }
  return fields;
}

LogTable TableOf(const std::vector<ErrorEntry>& entries) {
  LogTable table;
  table.name = "error";
  for (const ErrorEntry& entry : entries) {
    Fields fields;
    fields.Add("number", entry.number)
        .Add("queue", entry.queue)
        .Add("command", entry.command)
        .Add("status_type", int{entry.status.type})
        .Add("status_code", int{entry.status.code})
        .Add("status", StatusText(entry.status))
        .Add("noise", entry.is_noise())
        .Add("lba", entry.lba)
        .Add("namespace", entry.name_space)
        .Add("command_specific", entry.command_specific);
    table.records.push_back(fields.Take());
  }
  return table;
}

LogTable TableOf(const SelfTestLog& log) {
  LogTable table;
  table.name = "self_test";
  for (const SelfTestResult& each : log.results) {
    Fields fields;
    fields.Add("test", SelfTestName(each.test))
        .Add("result_code", int{each.result})
        .Add("result", SelfTestResultName(each.result))
        .Add("segment", int{each.segment})
        .Add("power_on_hours", each.power_on_hours)
        .Add("namespace", each.name_space)
        .Add("failing_lba", each.failing_lba);
    if (each.status_type) fields.Add("status_type", int{*each.status_type});
    if (each.status_code) fields.Add("status_code", int{*each.status_code});
    table.records.push_back(fields.Take());
  }
  return table;
}

LogTable TableOf(const PersistentEventLog& log) {
  LogTable table;
  table.name = "persistent_events";
  for (const PersistentEvent& event : log.events) {
    Fields fields;
    fields.Add("type", int{event.type})
        .Add("event", PersistentEventName(event.type))
        .Add("controller", event.controller)
        .Add("timestamp_milliseconds", event.timestamp_ms)
        .Add("clock_was_set", event.clock_was_set)
        .Add("hardware_error_code", event.hardware_error)
        .Add("previous_timestamp_milliseconds", event.previous_timestamp_ms);
    if (event.hardware_error) {
      fields.Add("hardware_error", HardwareErrorName(*event.hardware_error));
    }
    if (!event.firmware.empty()) fields.Add("firmware", event.firmware).Add("resets", event.resets);
    if (event.excursion) fields.Add("excursion_celsius", int{*event.excursion});
    if (event.threshold) fields.Add("threshold", int{*event.threshold});
    LogRecord record = fields.Take();
    if (event.smart) {
      for (LogField& field : FieldsOf(*event.smart).Take().fields) {
        record.fields.push_back({"smart_" + field.name, std::move(field.value)});
      }
    }
    table.records.push_back(std::move(record));
  }
  return table;
}

LogTable TableOf(const OcpLog& log) {
  Fields fields;
  fields.Add("media_written_bytes", log.media_bytes_written)
      .Add("media_read_bytes", log.media_bytes_read)
      .Add("bad_user_blocks", log.bad_user_blocks)
      .Add("bad_user_blocks_left_percent", log.bad_user_blocks_left)
      .Add("bad_system_blocks", log.bad_system_blocks)
      .Add("bad_system_blocks_left_percent", log.bad_system_blocks_left)
      .Add("xor_recoveries", log.xor_recoveries)
      .Add("uncorrectable_reads", log.uncorrectable_reads)
      .Add("soft_ecc_errors", log.soft_ecc_errors)
      .Add("end_to_end_detected", log.end_to_end_detected)
      .Add("end_to_end_corrected", log.end_to_end_corrected)
      .Add("system_area_used_percent", log.system_area_used_percent)
      .Add("refreshes", log.refreshes)
      .Add("most_erases", log.most_erases)
      .Add("least_erases", log.least_erases)
      .Add("throttling_events", log.throttling_events)
      .Add("throttling_level", log.throttling_level)
      .Add("pcie_correctable_errors", log.pcie_correctable_errors)
      .Add("incomplete_shutdowns", log.incomplete_shutdowns)
      .Add("free_blocks_percent", log.free_blocks_percent)
      .Add("capacitor_percent", log.capacitor_percent)
      .Add("unaligned_io", log.unaligned_io)
      .Add("power_loss_starts", log.power_loss_starts)
      .Add("endurance_bytes", log.endurance_bytes)
      .Add("log_version", log.log_version)
      .Add("pcie_link_retrainings", log.pcie_link_retrainings)
      .Add("dies", log.dies)
      .Add("dies_offline", log.dies_offline)
      .Add("command_timeouts", log.command_timeouts);
  return Single("ocp", fields);
}

LogTable TableOf(const AwsLog& log) {
  Fields fields;
  fields.Add("instance_store", log.instance_store)
      .Add("read_ops", log.read_ops)
      .Add("write_ops", log.write_ops)
      .Add("read_bytes", log.read_bytes)
      .Add("write_bytes", log.write_bytes)
      .Add("read_time_microseconds", Microseconds(log.read_time))
      .Add("write_time_microseconds", Microseconds(log.write_time))
      .Add("volume_over_iops_microseconds", Microseconds(log.volume_over_iops))
      .Add("volume_over_throughput_microseconds", Microseconds(log.volume_over_throughput))
      .Add("instance_over_iops_microseconds", Microseconds(log.instance_over_iops))
      .Add("instance_over_throughput_microseconds", Microseconds(log.instance_over_throughput))
      .Add("queue_length", log.queue_length);
  return Single("aws", fields);
}

}  // namespace

std::vector<LogTable> TablesOfLogs(const DriveLogs& logs) {
  std::vector<LogTable> tables;
  const auto add = [&](const auto& log) {
    if (log) tables.push_back(TableOf(*log));
  };
  add(logs.controller);
  add(logs.name_space);
  if (logs.smart) {
    Fields fields = FieldsOf(*logs.smart);
    tables.push_back(Single("smart", fields));
  }
  add(logs.errors);
  add(logs.self_tests);
  add(logs.events);
  add(logs.ocp);
  add(logs.aws);
  return tables;
}

}  // namespace metal::disk
