// A small deterministic fuzz driver for builds without libFuzzer: runs the corpus, then mutates it
// for a while. Usage: fuzz_NAME [--seconds N] [--seed S] [--runs N] [--max-length N]
// [CORPUS_DIRECTORY_OR_FILE...]
//   --seconds 0 (default): the corpus alone. The seed is printed; the same seed makes the same
//   inputs.
// When the target dies, the input is left as ./crash-NAME-SEED-N: run it again with `fuzz_NAME
// FILE`. Built with -fsanitize-coverage=trace-pc (GCC, Clang), inputs that reach new code are kept
// and mutated further. One input may take 10 seconds. Threading: one thread.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/clock.h"
#include "agent/base/file.h"
#include "fmt/format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using metal::base::RealClock;
using Bytes = std::vector<uint8_t>;

constexpr unsigned kSecondsForOneInput = 10;
constexpr size_t kKeptMost = 20'000;

struct Options {
  absl::Duration time;
  uint64_t seed = 1;
  uint64_t runs = UINT64_MAX;
  size_t max_length = 4096;
  std::vector<std::string> corpus;
};

// What reached which code: one byte for each hashed place.
uint8_t g_reached[1 << 16];  // no std::array: its members would be instrumented too
bool g_recording = false;
bool g_new_place = false;

// The input that runs now, for the handler of its death: plain memory, no allocation.
const uint8_t* g_input = nullptr;
size_t g_input_size = 0;
char g_artifact[512];

void SaveInput() {
  if (g_input == nullptr) return;
  const int fd = open(g_artifact, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const bool saved =
      fd >= 0 && write(fd, g_input, g_input_size) == static_cast<ssize_t>(g_input_size);
  g_input = nullptr;
  const char* const text = saved ? "\ninput left in " : "\ninput could not be saved to ";
  if (write(2, text, std::strlen(text)) < 0 || write(2, g_artifact, std::strlen(g_artifact)) < 0 ||
      write(2, "\n", 1) < 0) {
    _exit(77);
  }
}

void OnDeath(int number) {
  SaveInput();
  signal(number, SIG_DFL);
  raise(number);
}

void CatchDeath() {
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGALRM}) {
    if (__sanitizer_set_death_callback != nullptr && (number == SIGSEGV || number == SIGBUS))
      continue;
    struct sigaction action {};
    action.sa_handler = OnDeath;
    sigaction(number, &action, nullptr);
  }
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(SaveInput);
}

class Mutator {
 public:
  Mutator(uint64_t seed, size_t max_length) : random_(seed), max_length_(max_length) {}

  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  // A few changes at random to a copy of one input.
  Bytes Mutate(const std::vector<Bytes>& corpus) {
    Bytes input = corpus[Below(corpus.size())];
    for (size_t changes = 1 + Below(5); changes != 0; --changes) Change(input, corpus);
    if (input.size() > max_length_) input.resize(max_length_);
    return input;
  }

 private:
  void Change(Bytes& input, const std::vector<Bytes>& corpus) {
    switch (Below(9)) {
      case 0:
        if (!input.empty()) input[Below(input.size())] ^= static_cast<uint8_t>(1u << Below(8));
        break;
      case 1:
        if (!input.empty()) input[Below(input.size())] = static_cast<uint8_t>(random_());
        break;
      case 2:
        input.resize(Below(input.size() + 1));
        break;
      case 3:
        input.insert(At(input), 1 + Below(8), static_cast<uint8_t>(random_()));
        break;
      case 4:
        Erase(input);
        break;
      case 5:
        WriteNumber(input);
        break;
      case 6:
        WriteDigits(input);
        break;
      case 7:
        Copy(input, Bytes(input));  // a part of itself
        break;
      case 8:
        Copy(input, corpus[Below(corpus.size())]);
        break;
    }
  }

  Bytes::iterator At(Bytes& input) {
    return input.begin() + static_cast<ptrdiff_t>(Below(input.size() + 1));
  }

  void Erase(Bytes& input) {
    const auto from = At(input);
    const auto length = static_cast<ptrdiff_t>(Below(17));
    input.erase(from, from + std::min(length, input.end() - from));
  }

  // A number at the edge of some width, in either byte order, over what is there.
  void WriteNumber(Bytes& input) {
    constexpr uint64_t kEdges[] = {
        0,         1,          0x7f,       0x80,       0xff,        0x7fff,    0x8000,
        0xffff,    0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, INT64_MAX, uint64_t{1} << 63,
        UINT64_MAX};
    const uint64_t number = kEdges[Below(std::size(kEdges))] + Below(3) - 1;
    const size_t width = size_t{1} << Below(4);
    if (input.size() < width) return;
    const size_t at = Below(input.size() - width + 1);
    const bool big_endian = Below(2) == 0;
    for (size_t i = 0; i < width; ++i) {
      input[at + i] = static_cast<uint8_t>(number >> (8 * (big_endian ? width - 1 - i : i)));
    }
  }

  // A number as text, where one stands when there is one.
  void WriteDigits(Bytes& input) {
    constexpr std::string_view kNumbers[] = {
        "0", "-1", "4294967296", "9223372036854775808", "18446744073709551616", "00", "1e999", ""};
    const std::string_view number = kNumbers[Below(std::size(kNumbers))];
    auto from =
        std::find_if(At(input), input.end(), [](uint8_t c) { return c >= '0' && c <= '9'; });
    auto to = std::find_if(from, input.end(), [](uint8_t c) { return c < '0' || c > '9'; });
    from = input.erase(from, to);
    input.insert(from, number.begin(), number.end());
  }

  void Copy(Bytes& input, const Bytes& source) {
    if (source.empty()) return;
    const size_t from = Below(source.size());
    const size_t length = 1 + Below(std::min<size_t>(source.size() - from, 64));
    const auto first = source.begin() + static_cast<ptrdiff_t>(from);
    const auto last = first + static_cast<ptrdiff_t>(length);
    if (Below(2) == 0) {
      input.insert(At(input), first, last);
    } else {
      const size_t at = Below(input.size() + 1);
      if (input.size() < at + length) input.resize(at + length);
      std::copy(first, last, input.begin() + static_cast<ptrdiff_t>(at));
    }
  }

  std::mt19937_64 random_;
  const size_t max_length_;
};

// Runs one input from memory of its exact size, so that a sanitizer sees a read beyond it.
void RunOne(const Bytes& input) {
  const auto exact = std::make_unique<uint8_t[]>(input.size());  // not null even when empty
  std::copy(input.begin(), input.end(), exact.get());
  g_input = exact.get();
  g_input_size = input.size();
  g_new_place = false;
  alarm(kSecondsForOneInput);
  g_recording = true;
  LLVMFuzzerTestOneInput(exact.get(), input.size());
  g_recording = false;
  alarm(0);
  g_input = nullptr;
}

bool ParseNumber(std::string_view text, uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

bool ParseOptions(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (!word.starts_with("--")) {
      options.corpus.emplace_back(word);
      continue;
    }
    uint64_t number = 0;
    if (i + 1 == argc || !ParseNumber(argv[++i], number)) return false;
    if (word == "--seconds") {
      options.time = absl::Seconds(number);
    } else if (word == "--seed") {
      options.seed = number;
    } else if (word == "--runs") {
      options.runs = number;
    } else if (word == "--max-length") {
      options.max_length = number;
    } else {
      return false;
    }
  }
  return true;
}

// Files named or in the directories named, in the order of their names.
bool ReadCorpus(const std::vector<std::string>& places, std::vector<Bytes>& corpus) {
  std::vector<std::string> files;
  for (const std::string& place : places) {
    const auto names = metal::base::ListDirectory(place);
    if (!names.ok()) {
      files.push_back(place);
      continue;
    }
    for (const std::string& name : *names) files.push_back(metal::base::JoinPath(place, name));
  }
  for (const std::string& file : files) {
    const auto contents = metal::base::ReadFile(file);
    if (!contents.ok()) {
      fmt::print(stderr, "{}\n", contents.status().ToString());
      return false;
    }
    corpus.emplace_back(contents->begin(), contents->end());
  }
  return true;
}

void NameArtifact(const char* program, uint64_t seed, uint64_t run) {
  std::string_view name = program;
  name = name.substr(name.rfind('/') + 1).substr(0, 200);
  *fmt::format_to_n(g_artifact, sizeof g_artifact - 1, "crash-{}-{}-{}", name, seed, run).out =
      '\0';
}

}  // namespace

// Called at each edge by instrumented code.
extern "C" __attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc() {
  if (!g_recording) return;
  const auto place = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& reached = g_reached[(place ^ (place >> 16)) & 0xffff];
  if (reached == 0) {
    reached = 1;
    g_new_place = true;
  }
}

// So that a finding goes through the handler above.
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1"; }

int main(int argc, char** argv) {
  Options options;
  if (!ParseOptions(argc, argv, options)) {
    fmt::print(stderr,
               "usage: {} [--seconds N] [--seed S] [--runs N] [--max-length N] [CORPUS...]\n",
               argv[0]);
    return 2;
  }
  if (LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&argc, &argv);
  std::vector<Bytes> corpus;
  if (!ReadCorpus(options.corpus, corpus)) return 2;
  fmt::print("seed {}, {} inputs in the corpus\n", options.seed, corpus.size());
  CatchDeath();

  uint64_t runs = 0;
  for (const Bytes& input : corpus) {
    NameArtifact(argv[0], 0, ++runs);
    RunOne(input);
  }
  if (corpus.empty()) corpus.emplace_back();
  const size_t given = corpus.size();
  Mutator mutator(options.seed, options.max_length);
  const metal::base::MonotonicTime start = RealClock().Monotonic();
  uint64_t mutated = 0;
  while (mutated < options.runs && RealClock().Monotonic() - start < options.time) {
    Bytes input = mutator.Mutate(corpus);
    NameArtifact(argv[0], options.seed, ++mutated);
    RunOne(input);
    if (g_new_place && corpus.size() < kKeptMost) corpus.push_back(std::move(input));
  }
  const auto places = std::count(std::begin(g_reached), std::end(g_reached), 1);
  fmt::print("{} corpus inputs, {} mutated inputs, {} kept, {} places reached: no failure\n", runs,
             mutated, corpus.size() - given, places);
  return 0;
}
