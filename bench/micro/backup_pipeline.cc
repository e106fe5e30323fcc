// Runs the copy and unpack pipelines on a directory, without PostgreSQL: for profiling the data
// path alone.
//   backup_pipeline copy DATA_DIRECTORY OUTPUT [--codec=zstd|lz4|none] [--level=N] [--threads=N]
//   [--depth=N]
//                   [--engine=auto|io_uring|threads|pread] [--check]
//   backup_pipeline unpack OUTPUT TARGET        (TARGET "-": verify only)
// OUTPUT gets packs/, files.zst and manifest. Prints one line: bytes, seconds, MB/s, CPU seconds,
// resident memory.
#include <sys/resource.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "agent/backup/copy_pipeline.h"
#include "agent/backup/manifest.h"
#include "agent/backup/page_recheck.h"
#include "agent/backup/text_fields.h"
#include "agent/backup/unpack_pipeline.h"
#include "agent/base/file.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr std::string_view kLabel = "bench";

using Flags = std::map<std::string, std::string>;

int Number(const Flags& flags, const std::string& name, int otherwise) {
  const auto found = flags.find(name);
  int number = otherwise;
  if (found != flags.end()) ParseField(found->second, number);
  return number;
}

std::string Text(const Flags& flags, const std::string& name, const std::string& otherwise) {
  const auto found = flags.find(name);
  return found == flags.end() ? otherwise : found->second;
}

absl::StatusOr<std::unique_ptr<uring::IoEngine>> Engine(const Flags& flags, uint32_t depth) {
  METAL_ASSIGN_OR_RETURN(const uring::EngineKind kind,
                         uring::ParseEngineKind(Text(flags, "engine", "auto")));
  METAL_ASSIGN_OR_RETURN(uring::EngineChoice choice, uring::MakeEngine(kind, depth));
  return std::move(choice.engine);
}

void Report(std::string_view what, std::string_view engine, uint64_t bytes, uint64_t stored,
            absl::Duration wall) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double cpu = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  const double seconds = absl::ToDoubleSeconds(wall);
  fmt::print("{} {} bytes={} stored={} seconds={:.3f} MB/s={:.0f} cpu={:.2f} rss_mib={}\n", what,
             engine, bytes, stored, seconds, static_cast<double>(bytes) / seconds / 1e6, cpu,
             usage.ru_maxrss / 1024);
}

absl::Status Copy(const std::string& source, const std::string& output, const Flags& flags) {
  CopyOptions options;
  options.data_directory = source;
  METAL_ASSIGN_OR_RETURN(options.codec, stream::ParseCodec(Text(flags, "codec", "zstd")));
  options.level = Number(flags, "level", 1);
  options.threads = CodecThreads(Number(flags, "threads", 0));
  options.queue_depth = static_cast<uint32_t>(Number(flags, "depth", 16));
  options.check_pages = flags.count("check") != 0;
  options.packs.directory = base::JoinPath(output, "packs/bench");
  options.packs.label = kLabel;
  METAL_RETURN_IF_ERROR(base::RemoveTree(output));
  METAL_RETURN_IF_ERROR(base::MakeDirectories(options.packs.directory));
  METAL_ASSIGN_OR_RETURN(auto engine, Engine(flags, CopyEngineDepth(options)));
  METAL_ASSIGN_OR_RETURN(auto list, FileListWriter::Create(base::JoinPath(output, kFileListName)));
  PageRechecker::Options recheck;
  recheck.current_lsn = [] { return base::Lsn{UINT64_MAX}; };
  recheck.read = MakePageReader(source);
  PageRechecker rechecker(std::move(recheck), base::RealClock());
  observe::Progress progress(base::RealClock());
  const absl::Time begin = absl::Now();
  METAL_ASSIGN_OR_RETURN(
      auto pipeline, CopyPipeline::Create(options, std::move(engine), &rechecker, *list, progress));
  DirectoryWalk walk({source, 15, 202209061});
  METAL_RETURN_IF_ERROR(pipeline->CopyTree(walk));
  METAL_RETURN_IF_ERROR(pipeline->Finish());
  METAL_ASSIGN_OR_RETURN(const FileListTotals totals, list->Finish());
  Report("copy", pipeline->engine_name(), totals.bytes, pipeline->packs().stored_bytes(),
         absl::Now() - begin);

  BackupHeader header;
  header.label = kLabel;
  header.timeline = 1;
  header.files = totals.files;
  header.bytes = totals.bytes;
  header.file_list_bytes = totals.raw_bytes;
  header.file_list_sha256 = totals.sha256;
  for (const auto& pack : pipeline->packs().packs())
    header.packs.push_back({pack->name, pack->size});
  if (pipeline->totals().corrupt_page_count > 0) {
    fmt::print("corrupt pages: {}\n", pipeline->totals().corrupt_page_count);
  }
  return base::WriteFileDurably(base::JoinPath(output, kManifestName), FormatManifest(header));
}

absl::Status Unpack(const std::string& output, const std::string& target, const Flags& flags) {
  METAL_ASSIGN_OR_RETURN(const std::string text,
                         base::ReadFile(base::JoinPath(output, kManifestName), kManifestSizeMax));
  METAL_ASSIGN_OR_RETURN(const BackupHeader header, ParseManifest(text));
  UnpackOptions options;
  options.packs_directory = base::JoinPath(output, "packs");
  options.packs = header.packs;
  options.threads = CodecThreads(Number(flags, "threads", 0));
  options.queue_depth = static_cast<uint32_t>(Number(flags, "depth", 16));
  base::UniqueFd directory;
  if (target != "-") {
    METAL_RETURN_IF_ERROR(base::RemoveTree(target));
    METAL_RETURN_IF_ERROR(base::MakeDirectories(target));
    METAL_ASSIGN_OR_RETURN(directory, base::OpenFile(target, 0));
    options.target_directory = target;
    options.on_directory = [&](const FileListRecord& record) {
      const std::string path = base::JoinPath(target, record.file.path);
      return mkdir(path.c_str(), 0700) == 0 ? absl::OkStatus()
                                            : base::ErrnoStatus(errno, "create", path);
    };
  }
  METAL_ASSIGN_OR_RETURN(auto engine, Engine(flags, UnpackEngineDepth(options)));
  observe::Progress progress(base::RealClock());
  const absl::Time begin = absl::Now();
  METAL_ASSIGN_OR_RETURN(auto pipeline,
                         UnpackPipeline::Create(options, std::move(engine), progress));
  METAL_ASSIGN_OR_RETURN(auto list,
                         FileListReader::Open(base::JoinPath(output, kFileListName),
                                              {header.file_list_bytes, header.file_list_sha256,
                                               static_cast<uint32_t>(header.packs.size())}));
  METAL_RETURN_IF_ERROR(pipeline->Run(*list));
  const absl::Time written = absl::Now();
  if (directory.valid() && syncfs(directory.get()) != 0)
    return base::ErrnoStatus(errno, "syncfs", target);
  fmt::print("syncfs {:.3f} s\n", absl::ToDoubleSeconds(absl::Now() - written));
  Report(target == "-" ? "verify" : "unpack", pipeline->engine_name(), pipeline->totals().bytes,
         pipeline->totals().stored_bytes, absl::Now() - begin);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Flags flags;
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.compare(0, 2, "--") != 0) {
      words.push_back(word);
      continue;
    }
    const size_t equals = word.find('=');
    flags[word.substr(2, equals - 2)] = equals == std::string::npos ? "" : word.substr(equals + 1);
  }
  absl::Status status = absl::InvalidArgumentError("usage: see the head of backup_pipeline.cc");
  if (words.size() == 3 && words[0] == "copy") status = Copy(words[1], words[2], flags);
  if (words.size() == 3 && words[0] == "unpack") status = Unpack(words[1], words[2], flags);
  if (status.ok()) return 0;
  fmt::print(stderr, "backup_pipeline: {}\n", std::string(status.message()));
  return 1;
}

}  // namespace
}  // namespace metal::backup

int main(int argc, char** argv) { return metal::backup::Main(argc, argv); }
