#include "agent/base/fault_point.h"

#include <cstdlib>
#include <memory>

#include "agent/base/fault_plan.h"

namespace metal::base {
namespace {

std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Null when the environment asks for nothing: then a point costs one look at this pointer.
FaultPlan* ProcessPlan() {
  static const auto plan = [] {
    auto created = std::make_unique<FaultPlan>(FromEnvironment("METAL_FAULT_POINTS"),
                                               FromEnvironment("METAL_FAULT_PAUSE_FILE"),
                                               FromEnvironment("METAL_FAULT_TRACE"));
    if (!created->active()) created.reset();
    return created;
  }();
  return plan.get();
}

}  // namespace

absl::Status FaultPoint(std::string_view name) {
  FaultPlan* plan = ProcessPlan();
  return plan == nullptr ? absl::OkStatus() : plan->Pass(name);
}

}  // namespace metal::base
