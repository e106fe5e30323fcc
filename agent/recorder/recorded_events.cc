#include "agent/recorder/recorded_events.h"

#include "agent/recorder/record_json.h"

namespace metal::recorder {

void RecordedEvents::Append(observe::Event event) {
  Entry entry(RecordKind::kEvent);
  entry.Add("type", event.type).Add("severity", SeverityName(event.severity));
  entry.Add("subject", event.subject).Add("message", event.message);
  for (const auto& [name, value] : event.attributes) entry.AddPrefixed('@', name, value);
  recorder_->Put(entry);
  if (seen_) seen_(event);
  log_->Append(std::move(event));
}

}  // namespace metal::recorder
