// What the tests of OperationManager share. Threading: as the tests.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "agent/base/status.h"
#include "agent/node/operations/operations.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::node {

inline constexpr absl::Duration kLong = absl::Seconds(20);  // only a hang takes as long

using ::metal::testing::ReasonOf;

inline OperationSpec Spec(const std::string& kind, const std::string& request_id = "",
                          OperationLane lane = OperationLane::kAction) {
  OperationSpec spec;
  spec.kind = kind;
  spec.subject = "postgres";
  spec.parameters = {{"mode", "fast"}};
  spec.lane = lane;
  spec.request.request_id = request_id;
  spec.request.caller = "uid:0";
  return spec;
}

inline OperationBody Succeed() {
  return [](OperationContext&) -> absl::StatusOr<OperationResult> {
    return OperationResult{"things/1", {{"answer", "42"}}};
  };
}

inline OperationFilter Everything() {
  OperationFilter filter;
  filter.page_size = 1000;
  return filter;
}

// A body that runs until it is let go or cancelled.
class Gate {
 public:
  OperationBody Body() {
    return [this](OperationContext& context) -> absl::StatusOr<OperationResult> {
      ++entered_;
      while (!open_) {
        METAL_RETURN_IF_ERROR(context.progress.CheckCancelled());
        base::RealClock().Sleep(absl::Milliseconds(1));
      }
      return OperationResult{};
    };
  }
  void Open() { open_ = true; }
  int entered() const { return entered_; }

 private:
  std::atomic<bool> open_{false};
  std::atomic<int> entered_{0};
};

class OperationsTest : public ::testing::Test {
 protected:
  std::unique_ptr<OperationManager> OpenAt(const std::string& path, size_t keep = 1000) {
    OperationManagerOptions options;
    options.path = path;
    options.keep = keep;
    auto manager = OperationManager::Open(options, clock_, board_, events_);
    EXPECT_TRUE(manager.ok()) << manager.status();
    return manager.ok() ? *std::move(manager) : nullptr;
  }
  std::unique_ptr<OperationManager> Open(size_t keep = 1000) {
    return OpenAt(directory_.File("operations.db"), keep);
  }
  Operation Done(OperationManager& manager, const std::string& name) {
    auto operation = manager.Wait(name, kLong);
    EXPECT_TRUE(operation.ok()) << operation.status();
    EXPECT_TRUE(operation->done());
    return *operation;
  }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  observe::StatusBoard board_{clock_};
  metal::testing::RecordedEvents events_;
};

}  // namespace metal::node
