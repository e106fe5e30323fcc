#include "tools/metalctl/shard/step_log.h"

#include <cstdio>

#include "fmt/format.h"
#include "tools/metalctl/error.h"

namespace metal::shard {
namespace {

// One write for each line, so that lines of several threads do not mix.
void Print(std::FILE* file, const std::string& line) {
  fmt::print(file, "{}", line);
  std::fflush(file);
}

}  // namespace

void TextStepLog::Begin(std::string_view name, std::string_view nodes) {
  if (terminal_) Print(stdout, fmt::format("\r\033[K{:<18} {:<10} …", name, nodes));
}

void TextStepLog::End(const StepRecord& step) {
  Print(stdout, fmt::format("{}{:<18} {:<10} {:>7.3f} s  {}\n", terminal_ ? "\r\033[K" : "",
                            step.name, step.nodes, absl::ToDoubleSeconds(step.took),
                            step.error.empty() ? step.result : "FAILED: " + step.error));
}

void TextStepLog::Note(std::string_view text) {
  Print(stdout, fmt::format("{}{}\n", terminal_ ? "\r\033[K" : "", text));
}

void JsonStepLog::Begin(std::string_view name, std::string_view nodes) {
  Print(stderr, fmt::format("{{\"step\":{{\"name\":{},\"nodes\":{},\"state\":\"started\"}}}}\n",
                            ctl::JsonString(name), ctl::JsonString(nodes)));
}

void JsonStepLog::End(const StepRecord& step) {
  Print(stderr,
        fmt::format("{{\"step\":{{\"name\":{},\"nodes\":{},\"state\":\"{}\",\"seconds\":{:.6f},"
                    "\"result\":{},\"error\":{}}}}}\n",
                    ctl::JsonString(step.name), ctl::JsonString(step.nodes),
                    step.error.empty() ? "done" : "failed", absl::ToDoubleSeconds(step.took),
                    ctl::JsonString(step.result), ctl::JsonString(step.error)));
}

void JsonStepLog::Note(std::string_view text) {
  Print(stderr, fmt::format("{{\"note\":{{\"message\":{}}}}}\n", ctl::JsonString(text)));
}

}  // namespace metal::shard
