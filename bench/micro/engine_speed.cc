// engine_speed: how fast an I/O engine reads given files in order, and what that costs in CPU time.
//
//   engine_speed [--engine auto] [--depth 16] [--block-kib 512] [--buffered] FILE...
//
// Reads with O_DIRECT unless --buffered. Prints one line of JSON: {"engine", "depth", "block_kib",
// "direct", "mb_per_s", "cpu_s_per_gib" (user and system, all threads)}.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "agent/base/fd.h"
#include "agent/uring/buffer_pool.h"
#include "agent/uring/io_engine.h"
#include "fmt/format.h"

namespace metal::uring {
namespace {

struct Options {
  std::string engine = "auto";
  uint32_t depth = 16;
  uint32_t block = 512 << 10;
  bool direct = true;
  std::vector<std::string> files;
};

[[noreturn]] void Fail(const std::string& message) {
  fmt::print(stderr, "engine_speed: {}\n", message);
  std::exit(1);
}

uint32_t Number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    Fail(fmt::format("not a number: {}", text));
  }
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
    if (argument == "--engine") {
      options.engine = value();
    } else if (argument == "--depth") {
      options.depth = Number(value());
    } else if (argument == "--block-kib") {
      options.block = Number(value()) << 10;
    } else if (argument == "--buffered") {
      options.direct = false;
    } else if (argument.starts_with("--")) {
      Fail(fmt::format("unknown option {}", argument));
    } else {
      options.files.emplace_back(argument);
    }
  }
  if (options.files.empty() || options.block == 0) Fail("no files, or no block size");
  return options;
}

// One read of one block of one file.
struct Block {
  int fd;
  uint64_t offset;
};

double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

uint64_t ReadAll(IoEngine& engine, const std::vector<Block>& blocks, uint32_t block_size) {
  BufferPool pool(block_size, engine.depth());
  std::vector<IoRequest> requests(engine.depth());
  std::vector<IoRequest*> idle;
  for (IoRequest& request : requests) {
    request.buffer = pool.TryAcquire();
    idle.push_back(&request);
  }
  uint64_t bytes = 0;
  size_t next = 0;
  std::vector<IoRequest*> done;
  while (next < blocks.size() || engine.in_flight() > 0) {
    while (next < blocks.size() && !idle.empty()) {
      IoRequest* request = idle.back();
      idle.pop_back();
      request->fd = blocks[next].fd;
      request->offset = blocks[next].offset;
      request->length = block_size;
      ++next;
      engine.Submit(request);
    }
    if (const auto status = engine.Reap(done, absl::Seconds(60)); !status.ok()) {
      Fail(std::string(status.message()));
    }
    for (IoRequest* request : done) {
      if (request->result < 0) Fail(fmt::format("read: {}", strerror(-request->result)));
      bytes += static_cast<uint64_t>(request->result);
      idle.push_back(request);
    }
    done.clear();
  }
  return bytes;
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  const auto kind = ParseEngineKind(options.engine);
  if (!kind.ok()) Fail(std::string(kind.status().message()));
  auto choice = MakeEngine(*kind, options.depth);
  if (!choice.ok()) Fail(std::string(choice.status().message()));

  std::vector<base::UniqueFd> files;
  std::vector<Block> blocks;
  for (const std::string& path : options.files) {
    files.emplace_back(open(path.c_str(), O_RDONLY | O_CLOEXEC | (options.direct ? O_DIRECT : 0)));
    struct stat info;
    if (!files.back().valid() || fstat(files.back().get(), &info) != 0) {
      Fail(fmt::format("open {}: {}", path, strerror(errno)));
    }
    for (off_t offset = 0; offset < info.st_size; offset += options.block) {
      blocks.push_back({files.back().get(), static_cast<uint64_t>(offset)});
    }
  }
  const double cpu_before = CpuSeconds();
  const auto start = std::chrono::steady_clock::now();
  const auto bytes = static_cast<double>(ReadAll(*choice->engine, blocks, options.block));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const double cpu = CpuSeconds() - cpu_before;
  fmt::print(
      "{{\"engine\": \"{}\", \"depth\": {}, \"block_kib\": {}, \"direct\": {}, \"mb_per_s\": "
      "{:.1f}, "
      "\"cpu_s_per_gib\": {:.4f}}}\n",
      std::string(choice->engine->name()), options.depth, options.block >> 10, options.direct,
      bytes / elapsed.count() / 1e6, cpu / (bytes / static_cast<double>(uint64_t{1} << 30)));
  return 0;
}

}  // namespace
}  // namespace metal::uring

int main(int argc, char** argv) { return metal::uring::Main(argc, argv); }
