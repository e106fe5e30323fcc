// codec_speed: how fast this machine encodes or decodes given files, frame by frame as a backup
// does, without any disk.
//
//   codec_speed --codec zstd|lz4|none [--level 1] [--threads 1] [--seconds 3] [--decode]
//   [--all-steps] FILE...
//
// Reads at most 1 GiB of the files into memory first. Prints one line of JSON: {"codec", "level",
// "threads", "decode", "all_steps", "mb_per_s" (10^6 raw bytes per second, all threads together),
// "ratio" (raw ÷ encoded), "cpu_s_per_gib"}.
#include <time.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "agent/base/crc32c.h"
#include "agent/base/thread.h"
#include "agent/stream/codec.h"
#include "agent/stream/hash.h"
#include "agent/stream/page_checksum.h"
#include "fmt/format.h"

namespace metal {
namespace {

constexpr size_t kFrame = size_t{1} << 20;
constexpr size_t kMaxFrames = 1024;

struct Options {
  stream::CodecKind codec = stream::CodecKind::kZstd;
  int level = 1;
  int threads = 1;
  int seconds = 3;
  bool decode = false;
  bool all_steps = false;
  std::vector<std::string> files;
};

using Frame = std::vector<std::byte>;

struct Totals {
  std::atomic<uint64_t> raw_bytes{0};
  std::atomic<uint64_t> bad_pages{0};  // keeps the checks from being optimised away
};

[[noreturn]] void Fail(const std::string& message) {
  fmt::print(stderr, "codec_speed: {}\n", message);
  std::exit(1);
}

int Number(const char* text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text, text + strlen(text), value);
  if (error != std::errc() || *end != '\0') Fail(fmt::format("not a number: {}", text));
  return value;
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const auto value = [&]() -> const char* {
      if (++i >= argc) Fail(fmt::format("{} needs a value", argument));
      return argv[i];
    };
    if (argument == "--codec") {
      const auto codec = stream::ParseCodec(value());
      if (!codec.ok()) Fail(std::string(codec.status().message()));
      options.codec = *codec;
    } else if (argument == "--level") {
      options.level = Number(value());
    } else if (argument == "--threads") {
      options.threads = Number(value());
    } else if (argument == "--seconds") {
      options.seconds = Number(value());
    } else if (argument == "--decode") {
      options.decode = true;
    } else if (argument == "--all-steps") {
      options.all_steps = true;
    } else if (argument.starts_with("--")) {
      Fail(fmt::format("unknown option {}", argument));
    } else {
      options.files.emplace_back(argument);
    }
  }
  if (options.files.empty()) Fail("no files. HINT: codec_speed --codec zstd FILE...");
  return options;
}

std::vector<Frame> ReadFrames(const std::vector<std::string>& files) {
  std::vector<Frame> frames;
  for (const std::string& path : files) {
    std::ifstream file(path, std::ios::binary);
    if (!file) Fail(fmt::format("cannot open {}", path));
    while (file && frames.size() < kMaxFrames) {
      Frame frame(kFrame);
      file.read(reinterpret_cast<char*>(frame.data()), static_cast<std::streamsize>(kFrame));
      frame.resize(static_cast<size_t>(file.gcount()) / stream::kPageSize * stream::kPageSize);
      if (!frame.empty()) frames.push_back(std::move(frame));
    }
  }
  if (frames.empty()) Fail("the files hold no whole page of 8 KiB");
  return frames;
}

std::vector<Frame> EncodeAll(const Options& options, const std::vector<Frame>& raw) {
  auto encoder = stream::MakeEncoder(options.codec, options.level);
  if (!encoder.ok()) Fail(std::string(encoder.status().message()));
  std::vector<Frame> encoded;
  Frame out(stream::EncodedBound(kFrame));
  for (const Frame& frame : raw) {
    const auto size = (*encoder)->Encode(frame, out);
    if (!size.ok()) Fail(std::string(size.status().message()));
    encoded.emplace_back(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(*size));
  }
  return encoded;
}

void RunOtherSteps(const Frame& frame, Totals& totals) {
  std::vector<base::BlockNumber> bad;
  stream::VerifyPages(frame, 0, bad);
  totals.bad_pages += bad.size() + base::Crc32c(frame) % 2 + stream::Xxh3(frame) % 2;
}

// One thread: takes frames in turn until the time is over.
void Work(const Options& options, const std::vector<Frame>& raw, const std::vector<Frame>& encoded,
          std::chrono::steady_clock::time_point end, std::atomic<size_t>& next, Totals& totals) {
  auto encoder = stream::MakeEncoder(options.codec, options.level);
  if (!encoder.ok()) Fail(std::string(encoder.status().message()));
  auto decoder = stream::MakeDecoder();
  Frame out(stream::EncodedBound(kFrame));
  while (std::chrono::steady_clock::now() < end) {
    const size_t index = next++ % raw.size();
    if (options.decode) {
      out.resize(raw[index].size());
      const absl::Status status = decoder->Decode(options.codec, encoded[index], out);
      if (!status.ok()) Fail(std::string(status.message()));
      if (options.all_steps) RunOtherSteps(out, totals);
    } else {
      if (options.all_steps) RunOtherSteps(raw[index], totals);
      const auto size = (*encoder)->Encode(raw[index], out);
      if (!size.ok()) Fail(std::string(size.status().message()));
    }
    totals.raw_bytes += raw[index].size();
  }
}

double ProcessCpuSeconds() {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  const std::vector<Frame> raw = ReadFrames(options.files);
  const std::vector<Frame> encoded = EncodeAll(options, raw);  // also the ratio, and a warm-up
  uint64_t raw_bytes = 0;
  uint64_t encoded_bytes = 0;
  for (const Frame& frame : raw) raw_bytes += frame.size();
  for (const Frame& frame : encoded) encoded_bytes += frame.size();

  Totals totals;
  std::atomic<size_t> next{0};
  const double cpu_before = ProcessCpuSeconds();
  const auto start = std::chrono::steady_clock::now();
  const auto end = start + std::chrono::seconds(options.seconds);
  std::vector<base::Thread> threads;
  for (int i = 0; i < options.threads; ++i) {
    threads.emplace_back("codec", [&] { Work(options, raw, encoded, end, next, totals); });
  }
  for (auto& thread : threads) thread.Join();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const double cpu = ProcessCpuSeconds() - cpu_before;
  const auto done = static_cast<double>(totals.raw_bytes.load());
  fmt::print(
      "{{\"codec\": \"{}\", \"level\": {}, \"threads\": {}, \"decode\": {}, \"all_steps\": {}, "
      "\"mb_per_s\": {:.1f}, \"ratio\": {:.3f}, \"cpu_s_per_gib\": {:.3f}}}\n",
      std::string(stream::CodecName(options.codec)), options.level, options.threads, options.decode,
      options.all_steps, done / elapsed.count() / 1e6,
      static_cast<double>(raw_bytes) / static_cast<double>(encoded_bytes),
      cpu / (done / static_cast<double>(uint64_t{1} << 30)));
  return 0;
}

}  // namespace
}  // namespace metal

int main(int argc, char** argv) { return metal::Main(argc, argv); }
