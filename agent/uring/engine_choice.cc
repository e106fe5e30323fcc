#include "agent/base/status.h"
#include "agent/uring/io_engine.h"
#include "agent/uring/io_uring_engine.h"
#include "agent/uring/pread_engine.h"
#include "agent/uring/thread_engine.h"

namespace metal::uring {
namespace {

struct EngineRow {
  EngineKind kind;
  std::string_view name;
  absl::StatusOr<std::unique_ptr<IoEngine>> (*create)(uint32_t depth);
};
// In the order in which kAuto tries them.
constexpr EngineRow kEngines[] = {
    {EngineKind::kIoUring, "io_uring", IoUringEngine::Create},
    {EngineKind::kThreads, "threads", ThreadEngine::Create},
    {EngineKind::kPread, "pread", PreadEngine::Create},
};

absl::StatusOr<EngineChoice> MakeBest(uint32_t depth) {
  std::string failures;
  absl::Status last;
  for (const EngineRow& row : kEngines) {
    auto engine = row.create(depth);
    if (engine.ok()) {
      std::string reason = failures.empty() ? fmt::format("{}: available", row.name)
                                            : fmt::format("{}using {}", failures, row.name);
      return EngineChoice{*std::move(engine), std::move(reason)};
    }
    last = engine.status();
    failures += fmt::format("{}; ", std::string(last.message()));
  }
  return base::Annotate(last, "no I/O engine can be started");
}

}  // namespace

absl::StatusOr<EngineChoice> MakeEngine(EngineKind kind, uint32_t depth) {
  if (depth < 1 || depth > kMaxDepth) {
    return base::Error(absl::StatusCode::kInvalidArgument,
                       "I/O queue depth {} is outside 1 to {}. HINT: 8 to 32 suits local disks",
                       depth, kMaxDepth);
  }
  if (kind == EngineKind::kAuto) return MakeBest(depth);
  for (const EngineRow& row : kEngines) {
    if (row.kind != kind) continue;
    auto engine = row.create(depth);
    if (!engine.ok()) {
      return base::Error(engine.status().code(),
                         "{}. HINT: remove the cause, or set io_engine = \"auto\"",
                         std::string(engine.status().message()));
    }
    return EngineChoice{*std::move(engine), fmt::format("{}: chosen by configuration", row.name)};
  }
  return base::Error(absl::StatusCode::kInvalidArgument, "unknown I/O engine kind {}",
                     static_cast<int>(kind));
}

absl::StatusOr<EngineKind> ParseEngineKind(std::string_view name) {
  if (name == "auto") return EngineKind::kAuto;
  for (const EngineRow& row : kEngines) {
    if (row.name == name) return row.kind;
  }
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "unknown I/O engine \"{}\". HINT: use auto, io_uring, threads or pread", name);
}

}  // namespace metal::uring
