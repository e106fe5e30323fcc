#include "agent/gate/news.h"

#include <utility>

namespace metal::gate {
namespace {

constexpr const char* kFault = "gate_down";

}  // namespace

void EmitGateEvent(observe::EventLog& events, observe::Severity severity, std::string type,
                   std::string subject, std::string message,
                   std::map<std::string, std::string> attributes) {
  observe::Event event;
  event.time = absl::InfinitePast();  // the log's own clock
  event.severity = severity;
  event.type = std::move(type);
  event.subject = std::move(subject);
  event.message = std::move(message);
  event.attributes = std::move(attributes);
  events.Append(std::move(event));
}

DoorNews DoorNewsOf(std::string subject, base::Clock& clock, observe::StatusBoard& board,
                    observe::EventLog& events) {
  DoorNews news;
  news.restarted = [&events, subject](const std::string& why) {
    EmitGateEvent(events, observe::Severity::kError, "gate.restarted", subject,
                  "pgbouncer was restarted: " + why);
  };
  news.lost = [&clock, &board, &events, subject](const std::string& why) {
    board.RaiseFault({kFault, subject, observe::Severity::kCritical, why, clock.Now()});
    EmitGateEvent(events, observe::Severity::kCritical, "gate.down", subject, why);
  };
  news.recovered = [&board, &events, subject] {
    board.ClearFault(kFault, subject);
    EmitGateEvent(events, observe::Severity::kInfo, "gate.recovered", subject,
                  "pgbouncer answers and does as told");
  };
  return news;
}

}  // namespace metal::gate
