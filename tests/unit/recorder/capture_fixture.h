// Parts of a capture in memory and in a directory, and a reader of the archive. Threading: one
// thread.
#pragma once

#include <zstd.h>

#include <map>
#include <memory>
#include <string>

#include "agent/observe/emit.h"
#include "agent/observe/status_board.h"
#include "agent/recorder/capture.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/temp_dir.h"

namespace metal::recorder {

// Name (without the archive's directory) → contents; a header that is no good ends it.
inline std::map<std::string, std::string> FilesOf(const std::string& archive) {
  std::string tar(64 << 20, '\0');
  const size_t size = ZSTD_decompress(tar.data(), tar.size(), archive.data(), archive.size());
  if (ZSTD_isError(size) != 0) return {{"error", ZSTD_getErrorName(size)}};
  std::map<std::string, std::string> files;
  for (size_t at = 0; at + 512 <= size && tar[at] != '\0';) {
    const std::string name(tar.c_str() + at);
    const size_t bytes = std::stoull(tar.substr(at + 124, 11), nullptr, 8);
    files[name.substr(name.find('/') + 1)] = tar.substr(at + 512, bytes);
    at += 512 + (bytes + 511) / 512 * 512;
  }
  return files;
}

class CaptureFixture {
 public:
  CaptureFixture()
      : board_(base::RealClock()), events_(std::make_shared<testing::RecordedEvents>()) {
    config_.node_id = "db-1";
    config_.cluster_id = "test";
    config_.pg_data_dir = dir_.File("data");
    for (const char* name : {"postgresql.conf", "postgresql.auto.conf", "metal.conf", "pg_hba.conf",
                             "pg_ident.conf"}) {
      dir_.Write(std::string("data/") + name, std::string("# ") + name + "\n");
    }
    dir_.Write("postgres.log", "LOG:  database system is ready to accept connections\n");
    recorder_ = std::make_shared<Recorder>(
        RecorderOptions{.path = dir_.File("ring"), .size = {base::kMiB}}, base::RealClock());
  }

  void SetDataProbe(const std::string& state) {
    board_.Update([&](observe::NodeStatus& status) {
      observe::DiskSection disk;
      disk.device = "nvme0n1";
      observe::ProbeSection probe;
      probe.role = "data";
      probe.state = state;
      disk.probes.push_back(probe);
      status.disks = {disk};
    });
  }

  CaptureParts Parts() {
    return {.config = config_,
            .board = board_,
            .clock = base::RealClock(),
            .events = events_,
            .recorder = recorder_,
            .postgres_log = dir_.File("postgres.log"),
            .status_json =
                [](const observe::NodeStatus&, const CleanText& clean) {
                  return clean("state_reason", "password=planted-in-status") + "\n";
                },
            .histograms = nullptr,
            .kernel_log = [] { return absl::StatusOr<std::string>("[    1.000000] <6> hello\n"); },
            .before = nullptr,
            .versions = {}};
  }

  const testing::TempDir dir_;
  base::AgentConfig config_;
  observe::StatusBoard board_;
  std::shared_ptr<testing::RecordedEvents> events_;
  std::shared_ptr<Recorder> recorder_;
};

}  // namespace metal::recorder
