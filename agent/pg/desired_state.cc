#include "agent/pg/desired_state.h"

#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::pg {
namespace {

constexpr const char* kFile = "postgres.desired";

struct Word {
  std::string_view text;
  bool running;
  bool quarantined;
};
constexpr Word kWords[] = {
    {"running", true, false}, {"quarantined", true, true}, {"stopped", false, false}};

}  // namespace

std::string RenderDesiredState(const DesiredState& state) {
  const std::string_view role = state.role == StartRole::kPrimary ? "primary" : "standby";
  const std::string_view word = state.quarantined ? "quarantined"
                                : state.running   ? "running"
                                                  : "stopped";
  return fmt::format("{} {}\n", word, role);
}

absl::StatusOr<DesiredState> ParseDesiredState(std::string_view text) {
  for (const Word& word : kWords) {
    for (const StartRole role : {StartRole::kStandby, StartRole::kPrimary}) {
      const DesiredState state{word.running, word.quarantined, role};
      if (RenderDesiredState(state) == text) return state;
    }
  }
  return base::Error(absl::StatusCode::kInvalidArgument, "\"{}\" is no desired state",
                     text.substr(0, 60));
}

absl::StatusOr<DesiredState> LoadDesiredState(const std::string& state_dir) {
  const std::string path = base::JoinPath(state_dir, kFile);
  const absl::StatusOr<std::string> text = base::ReadFile(path, 4096);
  if (absl::IsNotFound(text.status())) return DesiredState{};
  if (!text.ok()) return text.status();
  absl::StatusOr<DesiredState> state = ParseDesiredState(*text);
  if (!state.ok()) return base::Annotate(state.status(), path);
  return state;
}

absl::Status StoreDesiredState(const std::string& state_dir, const DesiredState& state) {
  return base::WriteFileDurably(base::JoinPath(state_dir, kFile), RenderDesiredState(state));
}

}  // namespace metal::pg
