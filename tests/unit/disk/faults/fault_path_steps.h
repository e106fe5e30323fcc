// What the paths of fault_paths.h let a host show. Threading: as WatchedNode.
#pragma once

#include <cerrno>
#include <string>
#include <vector>

#include "agent/disk/faults/fault_table.h"
#include "agent/disk/nvme/aws_log.h"
#include "agent/disk/nvme/error_log.h"
#include "agent/disk/nvme/ocp_log.h"
#include "agent/disk/nvme/persistent_events.h"
#include "agent/disk/nvme/self_test_log.h"
#include "agent/disk/nvme/smart_log.h"
#include "tests/unit/disk/faults/watched_node.h"

namespace metal::disk {
namespace fault_paths {

using metal::testing::LoadPage;
using metal::testing::Page;
using metal::testing::Put;
using metal::testing::WatchedNode;
using enum FaultClass;

inline constexpr bool kRead = false, kWrite = true;
inline constexpr char kIdle[] = "100 0 800 50 200 0 1600 70 0 90 120 0 0 0 0 0 0\n";
inline constexpr char kMoved[] = "101 0 808 51 200 0 1600 70 0 95 120 0 0 0 0 0 0\n";
inline constexpr char kFlushError[] =
    "I/O error, dev nvme0n1, sector 0 op 0x1:(WRITE) flags 0x800 phys_seg 0 prio class 2";
inline constexpr char kTimeout[] = "nvme nvme0: I/O 1 QID 2 timeout, reset controller";

// What ends probes' states: a minute without an error, then some that work.
inline void ProbesWorkAgain(WatchedNode& node) {
  node.Pass(absl::Seconds(61));
  node.ProbesWork();
}

inline constexpr ProbeStamp kOlder = {.node = "a", .role = "data", .block = 3, .sequence = 8};
inline constexpr ProbeStamp kNewer = {.node = "a", .role = "data", .block = 3, .sequence = 9};

inline void SmartWarning(WatchedNode& node, uint8_t bits) {
  node.helper_.Smart(0, bits, 1);
  node.AskDrive();
}
template <uint8_t kBits>
void Warns(WatchedNode& node) {
  SmartWarning(node, kBits);
}
inline void WarnsNoMore(WatchedNode& node) { SmartWarning(node, 0); }

// The drive has a new entry in its error log, of a command on its namespace.
inline void DriveLogsError(WatchedNode& node, uint8_t status_type, uint8_t status_code) {
  node.AskDrive();
  Page& page = node.helper_.pages_[kErrorLogId];
  Put(page, 0, 1, 8);
  Put(page, 8, 2, 2);  // queue
  Put(page, 12, ((uint64_t{status_type} << 8) | status_code) << 1, 2);
  Put(page, 16, 256, 8);  // LBA
  Put(page, 24, 1, 4);    // namespace
  node.helper_.Smart(176, 1000, 8);
  node.AskDrive();
}

// Shows the drive's log of persistent events for the first time: what stands there is old.
inline void ReadOldEvents(WatchedNode& node) {
  Put(node.helper_.controller_, 261, 0x14, 1);
  node.helper_.pages_[kPersistentEventLogId] = LoadPage("persistent_events");
  node.AskDrive();
  node.Pass(absl::Hours(24));
}
// A new one, of this type, with these bytes.
inline void DriveLogsEvent(WatchedNode& node, uint8_t type, const std::vector<uint8_t>& data) {
  Page& page = node.helper_.pages_[kPersistentEventLogId];
  Page event(24 + data.size());
  Put(event, 0, type, 1);
  Put(event, 1, 1, 1);
  Put(event, 2, 21, 1);
  Put(event, 6, 0x0002019348000000, 8);
  Put(event, 22, data.size(), 2);
  for (size_t i = 0; i < data.size(); ++i) Put(event, 24 + i, data[i], 1);
  page.insert(page.begin() + kPersistentEventHeaderSize, event.begin(), event.end());
  Put(page, 4, 6, 4);
  Put(page, 8, page.size(), 8);
  node.AskDrive();
}

// A field of the OCP log grows.
inline void OcpGrows(WatchedNode& node, size_t offset, uint64_t value, size_t size) {
  node.helper_.ListLogs({0x01, 0x02, kOcpLogId});
  node.helper_.pages_[kOcpLogId] = LoadPage("ocp");
  Put(node.helper_.pages_[kOcpLogId], 97, 0, 1);  // not throttled
  node.AskDrive();
  Put(node.helper_.pages_[kOcpLogId], offset, value, size);
  node.AskDrive(absl::Minutes(1));
}

// What a server ended itself for, and its postmaster's line about it.
inline void ServerEndsItself(WatchedNode& node, const std::string& why) {
  node.PostgresSays("[123] PANIC:  " + why);
  node.PostgresSays("[1] LOG:  server process (PID 123) was terminated by signal 6: Aborted");
}

}  // namespace fault_paths
}  // namespace metal::disk
