// Domain status, events and operations → protobuf messages. Threading: pure functions.
#pragma once

#include <memory>
#include <string_view>

#include "absl/time/time.h"
#include "agent/observe/event_log.h"
#include "agent/observe/status_board.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "metal/agent/v1/host_service.pb.h"
#include "metal/agent/v1/status.pb.h"

namespace metal::rpc {

namespace v1 = ::metal::agent::v1;

google::protobuf::Timestamp ToProto(absl::Time time);
google::protobuf::Duration ToProto(absl::Duration duration);
// Infinite when unset is the caller's business: call has_…() first.
absl::Duration FromProto(const google::protobuf::Duration& duration);

v1::Role ToProto(observe::Role role);
v1::Severity ToProto(observe::Severity severity);
observe::Severity FromProto(v1::Severity severity);

// `now` gives the sections their age.
void ToProto(const observe::NodeStatus& status, base::MonotonicTime now, v1::NodeStatus* out);
void ToProto(const observe::DiskSection& disk, base::MonotonicTime now, v1::DiskStatus* out);
void ToProto(const observe::ArchiveSection& archive, base::MonotonicTime now,
             v1::ArchiveStatus* out);
// Whether the kernel tells any of it.
bool IsKnown(const observe::PressureSection& pressure);
void ToProto(const observe::PressureSection& pressure, base::MonotonicTime now,
             v1::HostPressure* out);
void ToProto(const observe::Fault& fault, v1::Fault* out);
void ToProto(const observe::TermHistoryEntry& entry, v1::TermHistoryEntry* out);
void ToProto(const observe::DurabilityRule& rule, v1::DurabilityRule* out);
void ToProto(const observe::Event& event, v1::Event* out);
// Of backup::BackupStateName.
v1::BackupState BackupStateToProto(std::string_view state);
void ToProto(const observe::BackupSummary& backup, v1::BackupSummary* out);

}  // namespace metal::rpc
