// A synthetic data directory, a source without a server and a context: what backup and restore need
// in tests.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/backup/backup.h"
#include "agent/backup/context.h"
#include "agent/backup/restore.h"
#include "agent/backup/verify.h"
#include "agent/base/crc32c.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/stream/page_checksum.h"
#include "tests/harness/faulty_engine.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/scattered_bytes.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {

inline constexpr uint32_t kTestCatalogVersion = 202209061;  // PostgreSQL 15
inline constexpr base::Lsn kTestStart{0x3000028};
inline constexpr base::Lsn kTestStop{0x3000100};

// pg_control of PostgreSQL 15, as pg::DecodeControlFile reads it.
inline std::string TestControlFile(bool checksums = true, uint64_t system = kTestSystem) {
  std::string bytes(8192, '\0');
  const auto put = [&](size_t offset, auto value) {
    std::memcpy(bytes.data() + offset, &value, sizeof value);
  };
  put(0, system);
  put(8, uint32_t{1300});
  put(12, kTestCatalogVersion);
  put(16, uint32_t{6});
  put(40, kTestStart.value);
  put(48, uint32_t{1});
  put(136, uint64_t{0x3000080});  // min recovery: counts on a standby
  put(216, uint32_t{8192});
  put(220, uint32_t{131072});
  put(224, uint32_t{8192});
  put(228, static_cast<uint32_t>(kTestSegmentSize));
  put(252, uint32_t{checksums ? 1u : 0u});
  put(288, base::Crc32c(BytesOf(bytes).first(288)));
  return bytes;
}

// Pages with right checksums for blocks first, first + 1, …
inline std::string TestPages(size_t count, base::BlockNumber first, unsigned seed,
                             uint64_t lsn = 0x1000) {
  std::string bytes(count * stream::kPageSize, '\0');
  uint32_t state = seed;
  for (size_t i = 0; i < count; ++i) {
    char* page = bytes.data() + i * stream::kPageSize;
    state = testing::ScatterBytes(std::span(page + 4096, stream::kPageSize - 4096), 3, state);
    const uint32_t high = static_cast<uint32_t>(lsn >> 32), low = static_cast<uint32_t>(lsn);
    std::memcpy(page, &high, 4);
    std::memcpy(page + 4, &low, 4);
    const uint16_t lower = 24, upper = 4096;
    std::memcpy(page + 12, &lower, 2);
    std::memcpy(page + 14, &upper, 2);
    const uint16_t checksum =
        stream::PageChecksum(std::as_bytes(std::span(page, stream::kPageSize)),
                             first + static_cast<base::BlockNumber>(i));
    std::memcpy(page + 8, &checksum, 2);
  }
  return bytes;
}

class FakeSource final : public BackupSource {
 public:
  struct Script {
    bool from_standby = false;
    base::Lsn current{0x4000000};
    std::string tablespace_map;
    SourceArchiving archiving{false, "on", "/usr/bin/metal-wal push --socket=/s %p %f", ""};
    absl::Status start, stop;
    std::function<void()> on_stop;  // e.g. archive the WAL
  };
  explicit FakeSource(const Script& script) : script_(script) {}
  absl::StatusOr<SourceArchiving> Archiving() override { return script_.archiving; }
  absl::StatusOr<SourceStart> Start(const SourceStartRequest&) override {
    if (!script_.start.ok()) return script_.start;
    return SourceStart{kTestSystem, 150004, script_.from_standby, 1, kTestStart};
  }
  absl::StatusOr<base::Lsn> CurrentLsn() override { return script_.current; }
  absl::StatusOr<SourceStop> Stop() override {
    if (!script_.stop.ok()) return script_.stop;
    if (script_.on_stop) script_.on_stop();
    return SourceStop{1, script_.from_standby ? base::Lsn{0x3000080} : kTestStop,
                      "START WAL LOCATION: 0/3000028\n", script_.tablespace_map};
  }

 private:
  const Script& script_;
};

// A file of the data directory: contents by relative path. Directories come from the paths.
using Tree = std::map<std::string, std::string>;

class BackupTest : public ::testing::Test {
 protected:
  BackupTest() {
    config_.repository_path = dir_.File("repository");
    config_.pg_data_dir = dir_.File("data");
    config_.state_dir = dir_.path();
    config_.wal_helper = "/usr/bin/metal-wal";
    config_.wal_socket = "/run/metal/wal.sock";
    config_.backup_codec = "zstd";
    config_.backup_threads = 2;
    // So little that frames wait for each other; sanitizers are slow with memory that comes and
    // goes.
    config_.backup_memory = {20 << 20};
    config_.io_engine = "pread";
    archive_ =
        std::make_unique<WalArchive>(WalArchiveOptions{config_.repository_path}, clock_, &events_);
    script_.on_stop = [this] { PushWal(); };
  }

  void PushWal() {
    TestSegment segment;
    segment.start = base::Lsn{0x3000000};
    std::string bytes = segment.Bytes();
    // One record, or those of the test, from start to stop.
    TestWal wal(kTestStart);
    if (fill_wal_) fill_wal_(wal);
    if (wal.end() < kTestStop) {
      wal.Add(0, 0, std::string(kTestStop.value - wal.end().value - 24, 'x'));
    }
    bytes.replace(0, wal.bytes().size(), wal.bytes());
    const auto pushed = archive_->PushBytes(segment.Name(), BytesOf(bytes), kTestSystem);
    ASSERT_TRUE(pushed.ok()) << pushed.status();
  }

  void Put(const std::string& path, const std::string& contents) {
    dir_.Write("data/" + path, contents);
  }

  // A cluster in small: every kind of entry that the engine treats in its own way.
  void MakeCluster() {
    for (const char* name : {"pg_wal", "pg_wal/archive_status", "pg_tblspc", "pg_replslot",
                             "pg_notify", "pg_stat_tmp", "base/1/empty_dir"}) {
      ASSERT_OK(base::MakeDirectories(dir_.File("data/" + std::string(name))));
    }
    Put("PG_VERSION", "15\n");
    Put("global/pg_control", TestControlFile());
    Put("global/1260", TestPages(3, 0, 1));
    Put("postgresql.conf", "# settings\ninclude 'metal.conf'\n");
    Put("postgresql.auto.conf", "work_mem = '8MB'\nrecovery_target_time = 'yesterday'\n");
    Put("postmaster.pid", "4711\n/data\n1795313700\n5432\n");
    Put("pg_wal/000000010000000000000003", "wal is not copied");
    Put("pg_replslot/slot/state", "not copied");
    Put("base/1/16384", TestPages(400, 0, 2));        // 3.1 MiB: several frames
    Put("base/1/16384.1", TestPages(40, 131072, 3));  // a second segment: blocks go on
    Put("base/1/16384_fsm", TestPages(3, 0, 4));
    Put("base/1/16384_vm", TestPages(1, 0, 5));
    Put("base/1/16385", "");
    Put("base/1/16390", TestPages(2, 0, 6));  // unlogged
    Put("base/1/16390_init", TestPages(1, 0, 7));
    Put("base/1/t3_16399", TestPages(1, 0, 8));  // temporary
    Put("base/1/pg_filenode.map", std::string(512, 'm'));
    Put("base/1/pg_internal.init", "rebuilt at start");
    Put("base/pgsql_tmp/pgsql_tmp1.0", "sort");
    Put("odd name\t100%\xc3\xa9", "names are bytes");
    for (int i = 0; i < 300; ++i)
      Put(fmt::format("base/1/{}", 20000 + i), TestPages(1 + i % 4, 0, 9));
  }

  // What a restore of MakeCluster must hold, beyond what the restore itself writes.
  static bool IsCopied(const std::string& path) {
    for (const char* skipped :
         {"postmaster.pid", "pg_wal/0", "pg_replslot/slot", "t3_", "pg_internal", "pgsql_tmp"}) {
      if (path.find(skipped) != std::string::npos) return false;
    }
    return path != "base/1/16390";
  }

  static void Collect(const std::string& root, const std::string& under, Tree& tree) {
    const auto names = base::ListDirectory(base::JoinPath(root, under));
    ASSERT_TRUE(names.ok()) << names.status();
    for (const std::string& name : *names) {
      const std::string path = under.empty() ? name : under + "/" + name;
      struct stat status {};
      ASSERT_EQ(stat(base::JoinPath(root, path).c_str(), &status), 0) << path;
      if (S_ISDIR(status.st_mode)) {
        tree[path + "/"] = "";
        Collect(root, path, tree);
      } else {
        const auto text = base::ReadFile(base::JoinPath(root, path), 64 << 20);
        ASSERT_TRUE(text.ok()) << text.status();
        tree[path] = *text;
      }
    }
  }
  static Tree TreeOf(const std::string& root) {
    Tree tree;
    Collect(root, "", tree);
    return tree;
  }

  OperationContext Context() {
    OperationContext context{config_, clock_, progress_};
    context.events = &events_;
    context.wal_archive = archive_.get();
    if (make_engine_) context.make_engine = make_engine_;
    return context;
  }
  SourceFactory Source() {
    return [this]() -> absl::StatusOr<std::unique_ptr<BackupSource>> {
      return std::make_unique<FakeSource>(script_);
    };
  }
  absl::StatusOr<BackupInfo> Backup(const BackupRequest& request = {}) {
    return CreateBackup(request, Source(), Context());
  }
  absl::StatusOr<RestoreReport> Restore(const std::string& target, RestoreRequest request = {}) {
    if (request.backup.empty()) request.backup = "latest";
    request.target_directory = target;
    return RestoreBackup(request, Context());
  }
  absl::StatusOr<VerifyReport> Verify(const std::string& label) {
    VerifyRequest request;
    request.backup = label;
    return VerifyBackup(request, Context());
  }
  Catalog TheCatalog() { return Catalog(*store::Repository::Open(config_.repository_path)); }
  // Packs and backup directories that exist, published or not.
  std::vector<std::string> RepositoryEntries() {
    std::vector<std::string> entries;
    for (const char* kind : {"backups", "packs"}) {
      const auto names =
          base::ListDirectory(fmt::format("{}/{}/{}", config_.repository_path, kTestSystem, kind));
      if (names.ok()) {
        for (const std::string& name : *names) entries.push_back(fmt::format("{}/{}", kind, name));
      }
    }
    return entries;
  }
  // An engine whose nth request goes wrong; `fired_` counts whether it did.
  void UseFaultyEngine(uint64_t nth, testing::FaultKind fault_kind, int error) {
    testing::Fault fault;
    fault.nth = nth;
    fault.kind = fault_kind;
    fault.error = error;
    make_engine_ = [this, fault](uring::EngineKind kind,
                                 uint32_t depth) -> absl::StatusOr<uring::EngineChoice> {
      auto choice = uring::MakeEngine(kind, depth);
      if (!choice.ok()) return choice.status();
      auto engine = std::make_unique<CountingEngine>(std::move(choice->engine), fault, &fired_);
      return uring::EngineChoice{std::move(engine), "faulty"};
    };
  }

  // Adds what went wrong to a counter that outlives the engine.
  class CountingEngine final : public uring::IoEngine {
   public:
    CountingEngine(std::unique_ptr<uring::IoEngine> inner, testing::Fault fault, uint64_t* fired)
        : engine_(std::move(inner), fault), fired_(fired) {}
    ~CountingEngine() override { *fired_ += engine_.fired(); }
    std::string_view name() const override { return engine_.name(); }
    uint32_t depth() const override { return engine_.depth(); }
    uint32_t in_flight() const override { return engine_.in_flight(); }
    void Submit(uring::IoRequest* request) override { engine_.Submit(request); }
    void Flush() override { engine_.Flush(); }
    void Wake() override { engine_.Wake(); }
    absl::Status Reap(std::vector<uring::IoRequest*>& done, absl::Duration timeout) override {
      return engine_.Reap(done, timeout);
    }

   private:
    testing::FaultyEngine engine_;
    uint64_t* fired_;
  };

  testing::TempDir dir_;
  base::AgentConfig config_;
  testing::SimulatedClock clock_;
  observe::Progress progress_{clock_};
  metal::testing::RecordedEvents events_;
  std::unique_ptr<WalArchive> archive_;
  FakeSource::Script script_;
  std::function<void(TestWal&)> fill_wal_;  // with records from kTestStart on, up to one page
  EngineFactory make_engine_;
  uint64_t fired_ = 0;
};

}  // namespace metal::backup
