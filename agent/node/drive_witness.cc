#include "agent/node/drive_witness.h"

#include "fmt/format.h"

namespace metal::node {

void RecordCounters(recorder::Recorder& recorder, const disk::CounterChanges& changes) {
  recorder::Entry entry(recorder::RecordKind::kDrive);
  entry.Add("device", changes.disk).Add("serial", changes.serial);
  entry.Add("severity", changes.notable ? "warning" : "info");
  for (const disk::CounterChange& change : changes.changes) {
    // A counter that was reset went back.
    const bool grew = change.now >= change.before;
    entry.Add(change.name, fmt::format("{}", change.now));
    entry.Add(change.name + "_delta",
              fmt::format("{}{}", grew ? "" : "-",
                          grew ? change.now - change.before : change.before - change.now));
  }
  recorder.Put(entry);
}

void RecordKernelLine(recorder::Recorder& recorder, const disk::KernelLine& line) {
  recorder::Entry entry(recorder::RecordKind::kKernel);
  entry.Add("subject", line.disk).Add("class", line.fault_class).Add("line", line.text);
  if (line.again > 0) entry.Add("again", line.again);
  recorder.Put(entry);
}

}  // namespace metal::node
