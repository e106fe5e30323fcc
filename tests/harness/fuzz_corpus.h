// Inputs that the fuzzers begin with, tests/fuzz/corpus/FUZZER/NAME, where a unit test knows how
// they are made. Such a test proves that each is still what the decoders take for right, and writes
// them anew when METAL_WRITE_CORPUS is set in its environment. Threading: pure functions on files.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/base/file.h"

namespace metal::testing {

inline constexpr std::string_view kCorpusHint =
    "HINT: METAL_WRITE_CORPUS=1 and this test write the fuzzer's corpus anew";

// The contents of an input; NOT_FOUND when it was never written. `made`: what it is to be.
inline absl::StatusOr<std::string> CorpusInput(std::string_view fuzzer, std::string_view name,
                                               std::string_view made) {
  const auto directory =
      std::filesystem::path(__FILE__).parent_path().parent_path() / "fuzz/corpus" / fuzzer;
  if (std::getenv("METAL_WRITE_CORPUS") != nullptr) {
    std::filesystem::create_directories(directory);
    std::ofstream(directory / name, std::ios::binary | std::ios::trunc) << made;
  }
  return base::ReadFile((directory / name).string());
}

}  // namespace metal::testing
