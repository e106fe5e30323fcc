// failslow: plays the corpus of slow and innocent drives (tests/harness/slow_corpus.h) to the
// slow-disk detector, on every core.
//
//   failslow [--seed 1] [--repeat 1] [--threads 1]
//
// Prints one line of JSON for each case, in the corpus's order: {"kind", "slowness", "factor",
// "peers", "seed", "alert_s" (seconds from the begin of the slowness to the alert, or null),
// "factor_told", "clear_s" (from its end to normal, or null), "false_alarms", "drive_hours"}.
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/thread.h"
#include "fmt/format.h"
#include "tests/harness/slow_corpus.h"
#include "tests/unit/disk/slow_replay.h"

namespace metal {
namespace {

[[noreturn]] void Fail(const std::string& message) {
  fmt::print(stderr, "failslow: {}\n", message);
  std::exit(1);
}

uint64_t Number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    Fail(fmt::format("{} is no number", text));
  }
  return value;
}

std::string Nullable(const std::optional<int>& value) {
  return value ? fmt::format("{}", *value) : "null";
}

std::string Line(const testing::SlowCase& slow_case, const testing::SlowReplay& replay) {
  return fmt::format(
      "{{\"kind\": \"{}\", \"slowness\": {}, \"factor\": {}, \"peers\": {}, \"seed\": {}, "
      "\"alert_s\": {}, \"factor_told\": {:.2f}, \"clear_s\": {}, \"false_alarms\": {}, "
      "\"drive_hours\": {:.2f}}}\n",
      testing::SlowCaseKindName(slow_case.kind), testing::IsSlowness(slow_case.kind),
      slow_case.factor, slow_case.with_peers, slow_case.seed, Nullable(replay.alert_after),
      replay.factor, Nullable(replay.clear_after), replay.false_alarms, replay.drive_hours);
}

int Main(std::span<char*> arguments) {
  uint64_t seed = 1, repeat = 1, threads = 1;
  for (size_t i = 0; i + 1 < arguments.size(); i += 2) {
    const std::string_view name = arguments[i];
    uint64_t* target = name == "--seed"      ? &seed
                       : name == "--repeat"  ? &repeat
                       : name == "--threads" ? &threads
                                             : nullptr;
    if (target == nullptr)
      Fail(fmt::format("{}: unknown. HINT: --seed, --repeat, --threads", name));
    *target = Number(arguments[i + 1]);
  }
  if (arguments.size() % 2 != 0) Fail(fmt::format("{} needs a value", arguments.back()));
  const auto corpus = testing::MakeSlowCorpus(seed, static_cast<int>(repeat));
  std::vector<std::string> lines(corpus.size());
  std::atomic<size_t> next{0};
  std::vector<base::Thread> workers;
  for (uint64_t i = 0; i < threads; ++i) {
    workers.emplace_back("replay", [&] {
      for (size_t at = next++; at < corpus.size(); at = next++) {
        lines[at] = Line(corpus[at], testing::ReplaySlowCase(corpus[at]));
      }
    });
  }
  for (auto& worker : workers) worker.Join();
  for (const std::string& line : lines) fmt::print("{}", line);
  return 0;
}

}  // namespace
}  // namespace metal

int main(int argc, char** argv) {
  return metal::Main(std::span<char*>(argv + 1, static_cast<size_t>(argc - 1)));
}
