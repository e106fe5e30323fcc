// Records and events as lines of JSON. Threading: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "agent/observe/event_log.h"
#include "agent/recorder/record.h"
#include "agent/recorder/redact.h"

namespace metal::recorder {

// One line with its end: sequence (null: not written yet), time, since_boot_us, kind, the facts;
// attributes of an event as an object.
std::string RecordLine(const Record& record, const Redactor& redactor);
// One line with its end: id, time, severity, type, subject, message, attributes.
std::string EventLine(const observe::Event& event, const Redactor& redactor);

// The kernel's own words in an event: its attribute "kernel_line", or the message of a
// "disk.kernel_line". Empty: none. Does not outlive the record.
std::string_view KernelLineOf(const Record& record);

// "info", "warning", "error", "critical".
std::string_view SeverityName(observe::Severity severity);
// "2026-11-22T02:15:00.123456Z".
std::string TimeText(absl::Time time);

}  // namespace metal::recorder
