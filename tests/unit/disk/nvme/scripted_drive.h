// A drive for tests of what it is asked and says: log pages by number, behind the privileged
// helper. Threading: not thread-safe.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/base/clock.h"
#include "agent/disk/nvme/error_log.h"
#include "agent/disk/nvme/persistent_events.h"
#include "agent/disk/nvme/smart_log.h"
#include "agent/disk/nvme/supported_logs.h"
#include "agent/disk/privileged.h"
#include "gtest/gtest.h"
#include "tests/unit/disk/nvme/page_fixture.h"

namespace metal::testing {

// A log that it does not have is refused, and counts as an error of the drive, as it does in real
// ones.
class ScriptedDrive final : public disk::PrivilegedHelper {
 public:
  explicit ScriptedDrive(base::Clock& clock) : clock_(clock) {
    pages_[disk::kSmartLogId] = LoadPage("smart");
    Smart(0, 0, 1);
    Smart(5, 4, 1);  // not worn
    Smart(176, 0, 8);
    pages_[disk::kErrorLogId] = Page(disk::kMaxErrorEntries * disk::kErrorEntrySize);
    controller_ = LoadPage("identify_controller");
    Put(controller_, 525, 0, 1);     // no volatile cache
    Put(controller_, 261, 0x00, 1);  // it does not list its logs
    Put(controller_, 256, 0x00, 2);
  }

  absl::StatusOr<Page> ReadNvmeLog(const std::string& controller,
                                   const disk::NvmeLogRequest& request,
                                   absl::Duration timeout) override {
    EXPECT_EQ(controller, "nvme0");
    EXPECT_GT(timeout, absl::ZeroDuration());
    asked_.push_back(request.log_id);
    requests_.push_back(request);
    if (const absl::Status status = Answer(); !status.ok()) return status;
    if (request.log_id == disk::kPersistentEventLogId) {
      if (const absl::Status status = Context(request.action); !status.ok()) return status;
    }
    const auto page = pages_.find(request.log_id);
    if (page == pages_.end()) {
      Smart(176, ++errors_, 8);
      return absl::UnimplementedError("unsupported: invalid log page");
    }
    Page part(request.length);
    for (size_t i = 0; i < part.size() && request.offset + i < page->second.size(); ++i) {
      part[i] = page->second[request.offset + i];
    }
    return part;
  }
  absl::StatusOr<Page> NvmeIdentify(const std::string&, absl::Duration) override {
    ++identified_;
    if (const absl::Status status = Answer(); !status.ok()) return status;
    return controller_;
  }
  absl::StatusOr<Page> NvmeIdentifyNamespace(const std::string&, uint32_t name_space,
                                             absl::Duration) override {
    EXPECT_EQ(name_space, 1u);
    if (const absl::Status status = Answer(); !status.ok()) return status;
    return LoadPage("identify_namespace");
  }
  absl::Status MoveToSystemdScope(pid_t, int, absl::Duration) override {
    return absl::UnimplementedError("no");
  }

  void Smart(size_t offset, uint64_t value, size_t size) {
    Put(pages_[disk::kSmartLogId], offset, value, size);
  }
  // It says which logs it has.
  void ListLogs(std::initializer_list<uint8_t> logs) {
    Put(controller_, 261, 0x20, 1);
    Page list(disk::kSupportedLogsSize);
    for (const uint8_t log : logs) Put(list, size_t{4} * log, 1, 4);
    pages_[disk::kSupportedLogsId] = list;
  }
  std::vector<int> TakeAsked() { return std::exchange(asked_, {}); }

  std::map<int, Page> pages_;
  Page controller_;
  absl::Status status_;      // of all commands
  absl::Duration slowness_;  // of each
  uint64_t errors_ = 0;
  int identified_ = 0;
  bool has_context_ = false;
  std::vector<disk::NvmeLogRequest> requests_;

 private:
  absl::Status Answer() {
    clock_.Sleep(slowness_);
    return status_;
  }
  absl::Status Context(uint8_t action) {
    if (action == 1 && has_context_) return absl::FailedPreconditionError("command sequence error");
    if (action == 0 && !has_context_) return absl::FailedPreconditionError("no context");
    has_context_ = action == 1 || (action == 0 && has_context_);
    return absl::OkStatus();
  }

  base::Clock& clock_;
  std::vector<int> asked_;
};

}  // namespace metal::testing
