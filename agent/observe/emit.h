// Appends one event; the fields in the order in which people read them. Threading: as
// EventLog::Append.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "agent/observe/event_log.h"

namespace metal::observe {

inline void Emit(EventLog& events, Severity severity, std::string type, std::string subject,
                 std::string message, std::map<std::string, std::string> attributes = {}) {
  Event event;
  event.time = absl::InfinitePast();  // the log's own clock
  event.severity = severity;
  event.type = std::move(type);
  event.subject = std::move(subject);
  event.message = std::move(message);
  event.attributes = std::move(attributes);
  events.Append(std::move(event));
}

}  // namespace metal::observe
