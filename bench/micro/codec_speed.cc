// codec_speed: how fast the agent's own encoders and decoders work on given files, frame by frame
// as in a backup and a restore, in memory and on several threads at once.
//
//   codec_speed --codec zstd|lz4|none [--level 1] [--threads 1] [--frame 1MiB] [--sample 256MiB]
//     [--direction compress|decompress|both] [--seconds 3 | --amount BYTES] [--all-steps] [--wait]
//     FILE...
//
//   --sample     memory for raw frames; they are taken evenly over all files
//   --seconds    how long each direction is measured
//   --amount     instead: ends when so many raw bytes went through
//   --all-steps  page checks, CRC-32C and XXH3 too, as the agent does
//   --wait       prints "ready" and starts when a line arrives on standard input
//
// Prints one line of JSON: {"codec", "level", "threads", "frame_bytes", "sample_bytes",
// "all_steps", "ratio" (raw ÷ encoded), and for each direction "compress_mb_s" (10^6 raw bytes per
// second, all threads together), "compress_s" (wall), "compress_cpu_s_per_gib"; "decompress_…"
// likewise}. Every frame is decoded once and compared before anything is measured.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
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

using Frame = std::vector<std::byte>;
using SteadyClock = std::chrono::steady_clock;

constexpr uint64_t kMiB = uint64_t{1} << 20;
struct Options {
  stream::CodecKind codec = stream::CodecKind::kZstd;
  int level = 1;
  uint64_t threads = 1;
  uint64_t frame_bytes = kMiB;
  uint64_t sample_bytes = 256 * kMiB;
  bool compress = true;
  bool decompress = true;
  uint64_t seconds = 3;
  uint64_t amount = 0;  // raw bytes; 0: by time
  bool all_steps = false;
  bool wait = false;
  std::vector<std::string> files;
};

[[noreturn]] void Fail(const std::string& message) {
  fmt::print(stderr, "codec_speed: {}\n", message);
  std::exit(1);
}

[[noreturn]] void Fail(const absl::Status& status) { Fail(std::string(status.message())); }

template <typename T>
T Number(std::string_view text, std::string_view whole) {
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    Fail(fmt::format("{} is no number. HINT: 3, 1048576, 512KiB, 1MiB", whole));
  }
  return value;
}

// "1048576", "512KiB", "1MiB".
uint64_t Size(std::string_view text) {
  uint64_t unit = 1;
  std::string_view digits = text;
  if (text.ends_with("KiB")) unit = 1024;
  if (text.ends_with("MiB")) unit = kMiB;
  if (unit > 1) digits.remove_suffix(3);
  return unit * Number<uint64_t>(digits, text);
}

void SetDirection(std::string_view direction, Options& options) {
  options.compress = direction != "decompress";
  options.decompress = direction != "compress";
  if (direction != "both" && options.compress && options.decompress) {
    Fail(fmt::format("direction {}: unknown. HINT: compress, decompress or both", direction));
  }
}

Options Parse(std::span<char*> arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    const auto value = [&]() -> std::string_view {
      if (++i >= arguments.size()) Fail(fmt::format("{} needs a value", argument));
      return arguments[i];
    };
    if (argument == "--codec") {
      const auto codec = stream::ParseCodec(value());
      if (!codec.ok()) Fail(codec.status());
      options.codec = *codec;
    } else if (argument == "--level") {
      const std::string_view level = value();
      options.level = Number<int>(level, level);
    } else if (argument == "--threads") {
      options.threads = Size(value());
    } else if (argument == "--frame") {
      options.frame_bytes = Size(value());
    } else if (argument == "--sample") {
      options.sample_bytes = Size(value());
    } else if (argument == "--direction") {
      SetDirection(value(), options);
    } else if (argument == "--seconds") {
      options.seconds = Size(value());
    } else if (argument == "--amount") {
      options.amount = Size(value());
    } else if (argument == "--all-steps") {
      options.all_steps = true;
    } else if (argument == "--wait") {
      options.wait = true;
    } else if (argument.starts_with("--")) {
      Fail(fmt::format("unknown option {}. HINT: see the head of codec_speed.cc", argument));
    } else {
      options.files.emplace_back(argument);
    }
  }
  if (options.files.empty()) Fail("no files. HINT: codec_speed --codec zstd FILE...");
  if (options.threads == 0) Fail("--threads 0. HINT: at least 1");
  if (options.frame_bytes == 0 || options.frame_bytes % stream::kPageSize != 0) {
    Fail("--frame: not a multiple of the page size, 8 KiB. HINT: 1MiB, as in a repository");
  }
  return options;
}

// Frames of whole pages, evenly over all files.
std::vector<Frame> Sample(const Options& options) {
  uint64_t total = 0;
  for (const std::string& path : options.files) {
    std::error_code error;
    total += std::filesystem::file_size(path, error);
    if (error) Fail(fmt::format("{}: {}", path, error.message()));
  }
  const uint64_t step = total / std::max(options.sample_bytes, options.frame_bytes) + 1;
  uint64_t number = 0;  // of the frame, counted over all files
  std::vector<Frame> frames;
  for (const std::string& path : options.files) {
    std::ifstream file(path, std::ios::binary);
    if (!file) Fail(fmt::format("cannot open {}", path));
    for (uint64_t offset = 0; file; offset += options.frame_bytes) {
      if (number++ % step != 0) {
        if (offset >= std::filesystem::file_size(path)) break;
        continue;
      }
      Frame frame(options.frame_bytes);
      file.seekg(static_cast<std::streamoff>(offset));
      file.read(reinterpret_cast<char*>(frame.data()),
                static_cast<std::streamsize>(options.frame_bytes));
      frame.resize(static_cast<size_t>(file.gcount()) / stream::kPageSize * stream::kPageSize);
      if (!frame.empty()) frames.push_back(std::move(frame));
    }
  }
  if (frames.empty()) Fail("the files hold no whole page of 8 KiB");
  return frames;
}

uint64_t BytesOf(const std::vector<Frame>& frames) {
  uint64_t bytes = 0;
  for (const Frame& frame : frames) bytes += frame.size();
  return bytes;
}

std::vector<Frame> EncodeAll(const Options& options, const std::vector<Frame>& raw) {
  auto encoder = stream::MakeEncoder(options.codec, options.level);
  if (!encoder.ok()) Fail(encoder.status());
  const auto decoder = stream::MakeDecoder();
  std::vector<Frame> encoded;
  Frame out(stream::EncodedBound(options.frame_bytes));
  for (const Frame& frame : raw) {
    const auto size = (*encoder)->Encode(frame, out);
    if (!size.ok()) Fail(size.status());
    encoded.emplace_back(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(*size));
    Frame again(frame.size());
    const absl::Status decoded = decoder->Decode(options.codec, encoded.back(), again);
    if (!decoded.ok()) Fail(decoded);
    if (again != frame) Fail("a frame did not survive encoding and decoding");
  }
  return encoded;
}

// One direction, on all threads, until the time is over or the amount is done.
class Measurement {
 public:
  Measurement(const Options& options, const std::vector<Frame>& raw,
              const std::vector<Frame>& encoded, bool decode)
      : options_(options), raw_(raw), encoded_(encoded), decode_(decode) {}

  // The JSON members of this direction.
  std::string Run() {
    const double cpu_before = CpuSeconds();
    const auto start = SteadyClock::now();
    end_ = start + std::chrono::seconds(options_.seconds);
    std::vector<base::Thread> threads;
    for (uint64_t i = 0; i < options_.threads; ++i) {
      threads.emplace_back("codec", [this] { Work(); });
    }
    for (auto& thread : threads) thread.Join();
    const double seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
    const auto done = static_cast<double>(done_.load());
    const std::string_view name = decode_ ? "decompress" : "compress";
    return fmt::format("\"{0}_mb_s\": {1:.1f}, \"{0}_s\": {2:.3f}, \"{0}_cpu_s_per_gib\": {3:.3f}",
                       name, done / seconds / 1e6, seconds,
                       (CpuSeconds() - cpu_before) / (done / static_cast<double>(1024 * kMiB)));
  }

 private:
  static double CpuSeconds() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](const timeval& time) {
      return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
  }

  bool Over() const {
    return options_.amount > 0 ? done_ >= options_.amount : SteadyClock::now() >= end_;
  }

  void OtherSteps(const Frame& frame) {
    std::vector<base::BlockNumber> bad;
    stream::VerifyPages(frame, 0, bad);
    checked_ += bad.size() + base::Crc32c(frame) % 2 + stream::Xxh3(frame) % 2;
  }

  // One thread: takes frames in turn.
  void Work() {
    auto encoder = stream::MakeEncoder(options_.codec, options_.level);
    if (!encoder.ok()) Fail(encoder.status());
    const auto decoder = stream::MakeDecoder();
    Frame out(stream::EncodedBound(options_.frame_bytes));
    while (!Over()) {
      const size_t index = next_++ % raw_.size();
      const Frame& frame = raw_[index];
      if (decode_) {
        out.resize(frame.size());
        const absl::Status status = decoder->Decode(options_.codec, encoded_[index], out);
        if (!status.ok()) Fail(status);
        if (options_.all_steps) OtherSteps(out);
      } else {
        if (options_.all_steps) OtherSteps(frame);
        const auto size = (*encoder)->Encode(frame, out);
        if (!size.ok()) Fail(size.status());
      }
      done_ += frame.size();
    }
  }

  const Options& options_;
  const std::vector<Frame>& raw_;
  const std::vector<Frame>& encoded_;
  const bool decode_;
  SteadyClock::time_point end_;
  std::atomic<size_t> next_{0};
  std::atomic<uint64_t> done_{0};     // raw bytes
  std::atomic<uint64_t> checked_{0};  // keeps the other steps from being optimised away
};

int Main(std::span<char*> arguments) {
  const Options options = Parse(arguments);
  const std::vector<Frame> raw = Sample(options);
  const std::vector<Frame> encoded = EncodeAll(options, raw);  // also a warm-up
  if (options.wait) {
    fmt::print("ready\n");
    std::fflush(stdout);
    while (std::getchar() != '\n' && !std::feof(stdin)) continue;
  }
  std::string directions;
  if (options.compress) directions += ", " + Measurement(options, raw, encoded, false).Run();
  if (options.decompress) directions += ", " + Measurement(options, raw, encoded, true).Run();
  fmt::print(
      "{{\"codec\": \"{}\", \"level\": {}, \"threads\": {}, \"frame_bytes\": {}, "
      "\"sample_bytes\": {}, \"all_steps\": {}, \"ratio\": {:.3f}{}}}\n",
      std::string(stream::CodecName(options.codec)), options.level, options.threads,
      options.frame_bytes, BytesOf(raw), options.all_steps,
      static_cast<double>(BytesOf(raw)) / static_cast<double>(BytesOf(encoded)), directions);
  return 0;
}

}  // namespace
}  // namespace metal

int main(int argc, char** argv) {
  return metal::Main(std::span<char*>(argv + 1, static_cast<size_t>(argc - 1)));
}
