#include "agent/recorder/capture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/recorder/json_text.h"
#include "agent/recorder/record_json.h"
#include "agent/recorder/record_stream.h"
#include "agent/recorder/timeline.h"

namespace metal::recorder {
namespace {

constexpr size_t kLogTail = 1 << 20;
constexpr size_t kPart = 4 << 20;  // of records-NNNN.jsonl
constexpr size_t kKernelMost = 2 << 20;
constexpr size_t kEventsMost = 10000;
constexpr std::string_view kReadMe =
    R"(What metal-agent knew when this was captured. Begin with timeline.html: open it in a browser.

timeline.html      latency of the disks, events, the kernel's lines, steps, calls on one axis of time
status.json        the node's status at that moment
records-*.jsonl    the flight recorder, oldest first, one record a line
events.jsonl       the event log, the newest 10000
histograms.json    latencies of the disks' probes over the last minutes
kernel.txt         lines of the kernel about disks, then its log where the agent may read it
postgres.log       the end of PostgreSQL's log
settings/          PostgreSQL's configuration files; where settings.missing.txt says so, as of earlier
agent.toml         the agent's configuration as in force
versions.json      versions of what runs
manifest.json      what is here, and what is missing and why

Passwords, keys, tokens and hashes of passwords were removed from all files, and read "<removed>".
Where a part could not be read in time, NAME.missing.txt says why.
)";

// The last `most` bytes of a file, from the beginning of a line.
absl::StatusOr<std::string> ReadTail(const std::string& path, size_t most) {
  METAL_ASSIGN_OR_RETURN(const base::UniqueFd fd, base::OpenFile(path, O_RDONLY));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return base::ErrnoStatus(errno, "stat", path);
  const auto size = static_cast<size_t>(info.st_size);
  const size_t from = size > most ? size - most : 0;
  std::string text(size - from, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got =
        ::pread(fd.get(), text.data() + done, text.size() - done, static_cast<off_t>(from + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "read", path);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  text.resize(done);
  return from == 0 ? text : text.substr(std::min(text.find('\n') + 1, text.size()));
}

class CaptureRun {
 public:
  CaptureRun(const CaptureParts& parts, PatientCalls& calls, const CaptureRequest& request,
             const ByteSink& sink)
      : parts_(parts),
        calls_(calls),
        request_(request),
        now_(parts.clock.Now()),
        since_(request.window > absl::ZeroDuration() ? now_ - request.window
                                                     : absl::InfinitePast()),
        status_(parts.board.Get()),
        settings_(parts.settings == nullptr ? std::make_shared<const SettingsCopy::Kept>()
                                            : parts.settings->Get()),
        redactor_(KnownSecrets()),
        timeline_(redactor_),
        archive_(Directory(), now_, sink) {}

  absl::StatusOr<CaptureSummary> Run() {
    summary_.directory = Directory();
    if (parts_.before) parts_.before();
    using Step = absl::Status (CaptureRun::*)();
    // What is in memory first: it is there whatever hangs.
    for (const Step step :
         {&CaptureRun::AddReadMe, &CaptureRun::AddStatus, &CaptureRun::AddHistograms,
          &CaptureRun::AddConfig, &CaptureRun::AddRecords, &CaptureRun::AddTimeline,
          &CaptureRun::AddEvents, &CaptureRun::AddKernel, &CaptureRun::AddPostgresLog,
          &CaptureRun::AddVersions, &CaptureRun::AddSettings, &CaptureRun::AddManifest}) {
      if (request_.stop && request_.stop()) return absl::CancelledError("capture: not wanted");
      METAL_RETURN_IF_ERROR((this->*step)());
    }
    METAL_RETURN_IF_ERROR(archive_.Finish());
    summary_.files = archive_.names();
    return std::move(summary_);
  }

 private:
  std::string Directory() const {
    return fmt::format("metal-diag-{}-{}", parts_.config.node_id.substr(0, 48),
                       absl::FormatTime("%Y%m%dT%H%M%SZ", now_, absl::UTCTimeZone()));
  }

  template <typename T>
  std::optional<T> Ask(const std::string& name, std::function<T()> call) {
    return calls_.Run<T>(name, std::move(call), request_.patience, request_.stop);
  }

  std::vector<std::string> KnownSecrets() {
    const std::string path = parts_.config.replication_password_file;
    if (path.empty()) return {};
    const auto text = Ask<std::string>(
        "diag-secret", [path] { return base::ReadFile(path, 64 << 10).value_or(""); });
    return {text ? text->substr(0, text->find_first_of("\r\n")) : ""};
  }

  absl::Status Add(const std::string& name, std::string_view text) {
    return archive_.AddFile(name, redactor_.Clean(text));
  }
  // Text whose parts are clean already.
  absl::Status AddClean(const std::string& name, std::string_view text) {
    return archive_.AddFile(name, text);
  }
  absl::Status Miss(const std::string& name, const std::string& why) {
    const std::string clean = redactor_.Clean(why);
    summary_.missing[name] = clean;
    return archive_.AddFile(name + ".missing.txt", clean + "\n");
  }
  std::string NoAnswer() const {
    return fmt::format("not read: its disk did not answer within {}",
                       absl::FormatDuration(request_.patience));
  }

  absl::Status AddReadMe() { return AddClean("README.txt", kReadMe); }

  absl::Status AddStatus() {
    return AddClean("status.json", parts_.status_json(*status_, [this](std::string_view name,
                                                                       std::string_view text) {
      return redactor_.CleanValue(name, text);
    }));
  }

  absl::Status AddHistograms() {
    std::vector<std::string> rows;
    for (const ProbeHistogram& each :
         parts_.histograms ? parts_.histograms() : std::vector<ProbeHistogram>()) {
      std::vector<std::string> buckets;
      for (const auto& [edge, count] : each.buckets)
        buckets.push_back(fmt::format("[{},{}]", absl::ToInt64Nanoseconds(edge), count));
      JsonObject row;
      row.Add("role", each.role).Add("operation", each.writes ? "write" : "read");
      row.AddRaw("buckets_ns", fmt::format("[{}]", fmt::join(buckets, ",")));
      rows.push_back(row.Text());
    }
    return AddClean("histograms.json", fmt::format("[{}]\n", fmt::join(rows, ",\n")));
  }

  absl::Status AddConfig() { return Add("agent.toml", base::EffectiveConfigText(parts_.config)); }

  absl::Status AddRecords() {
    RecordStream stream(parts_.recorder->path(), since_);
    absl::StatusOr<std::vector<Record>> batch = std::vector<Record>();
    while (true) {
      batch = stream.Next(request_.patience, request_.stop);
      if (!batch.ok() || batch->empty()) break;
      if (request_.stop && request_.stop()) return absl::CancelledError("capture: not wanted");
      for (const Record& record : *batch) METAL_RETURN_IF_ERROR(AddRecord(record));
    }
    for (const Record& record : parts_.recorder->Waiting()) {
      if (record.time >= since_) METAL_RETURN_IF_ERROR(AddRecord(record));
    }
    METAL_RETURN_IF_ERROR(EndPart());
    if (batch.ok()) return absl::OkStatus();
    return Miss("records", fmt::format("{}; what is here is all that was read",
                                       std::string(batch.status().message())));
  }

  absl::Status AddRecord(const Record& record) {
    timeline_.Add(record);
    NoteKernelLine(record);
    part_ += RecordLine(record, redactor_);
    ++summary_.records;
    return part_.size() < kPart ? absl::OkStatus() : EndPart();
  }

  absl::Status EndPart() {
    if (part_.empty()) return absl::OkStatus();
    const std::string text = std::exchange(part_, {});
    return AddClean(fmt::format("records-{:04}.jsonl", ++parts_done_), text);
  }

  void NoteKernelLine(const Record& record) {
    const std::string_view line = KernelLineOf(record);
    if (line.empty() || kernel_.size() > kKernelMost) return;
    const std::string_view again = record.Find("again");
    kernel_ += fmt::format("{}  {}: {}{}\n", TimeText(record.time), record.Find("subject"), line,
                           again.empty() ? "" : fmt::format(" ({} times more)", again));
  }

  absl::Status AddTimeline() {
    TimelineHead head;
    head.node = parts_.config.node_id;
    head.cluster = parts_.config.cluster_id;
    head.reason = request_.reason;
    head.captured = now_;
    head.versions =
        fmt::format("metal-agent {}, PostgreSQL {}", status_->node.agent_version,
                    status_->postgres.version.empty() ? "unknown" : status_->postgres.version);
    for (const auto& [key, fault] : status_->faults) head.faults.push_back(fault);
    return AddClean("timeline.html", timeline_.Page(head));
  }

  absl::Status AddEvents() {
    observe::EventFilter filter;
    filter.limit = kEventsMost;
    filter.newest = true;
    using Events = absl::StatusOr<std::vector<observe::Event>>;
    const auto listed = Ask<Events>(
        "diag-events", [events = parts_.events, filter] { return events->List(filter); });
    Events found = listed ? *listed : absl::DeadlineExceededError(NoAnswer());
    const absl::Status failed = found.status();
    if (!found.ok()) found = parts_.events->WaitAfter(OldestInMemory(), absl::ZeroDuration());
    std::string text;
    for (const observe::Event& event : found.ok() ? *found : std::vector<observe::Event>()) {
      if (event.time >= since_) text += EventLine(event, redactor_);
    }
    METAL_RETURN_IF_ERROR(AddClean("events.jsonl", text));
    if (failed.ok()) return absl::OkStatus();
    return Miss("events.jsonl",
                fmt::format("{}; only what was in memory is here", std::string(failed.message())));
  }

  // What the log has in memory begins after it: the log says so when it is asked for more.
  uint64_t OldestInMemory() {
    const uint64_t last = parts_.events->last_id();
    for (uint64_t back = 4096; back > 0; back /= 2) {
      const uint64_t after = last > back ? last - back : 0;
      if (parts_.events->WaitAfter(after, absl::ZeroDuration()).ok()) return after;
    }
    return last;
  }

  absl::Status AddKernel() {
    const auto log = Ask<absl::StatusOr<std::string>>("diag-kernel", parts_.kernel_log);
    std::string text = kernel_.empty() ? "" : "From the flight recorder:\n" + kernel_ + "\n";
    if (log && log->ok()) text += "The kernel's log:\n" + **log;
    METAL_RETURN_IF_ERROR(Add("kernel.txt", text));
    if (log && log->ok()) return absl::OkStatus();
    return Miss("kernel.txt",
                log ? fmt::format("the kernel's log: {}", std::string(log->status().message()))
                    : NoAnswer());
  }

  absl::Status AddPostgresLog() {
    const std::string path = parts_.postgres_log;
    const auto text =
        Ask<absl::StatusOr<std::string>>("diag-log", [path]() -> absl::StatusOr<std::string> {
          METAL_ASSIGN_OR_RETURN(std::string log, ReadTail(path, kLogTail));
          if (log.size() < kLogTail / 4) log = ReadTail(path + ".1", kLogTail).value_or("") + log;
          return log;
        });
    if (!text) return Miss("postgres.log", fmt::format("{}: {}", path, NoAnswer()));
    if (!text->ok()) return Miss("postgres.log", std::string(text->status().message()));
    return Add("postgres.log", **text);
  }

  absl::Status AddVersions() {
    JsonObject versions;
    versions.Add("metal_agent", status_->node.agent_version);
    versions.Add("postgres", status_->postgres.version);
    versions.Add("io_engine", status_->node.io_engine);
    struct utsname kernel {};
    if (::uname(&kernel) == 0)
      versions.Add("kernel", fmt::format("{} {}", kernel.release, kernel.version));
    const auto system = Ask<std::string>(
        "diag-versions", [] { return base::ReadFile("/etc/os-release", 64 << 10).value_or(""); });
    versions.Add("os_release", system.value_or(NoAnswer()));
    versions.Add("zstd", ZSTD_versionString());
    for (const auto& [name, version] : parts_.versions) versions.Add(name, version);
    return AddClean("versions.json", versions.Text() + "\n");
  }

  absl::Status AddSettings() {
    const std::string directory = parts_.config.pg_data_dir;
    const std::string trouble = TroubleOfDataDisk(*status_);
    if (!trouble.empty()) return AddKeptSettings("not asked for: " + trouble);
    const auto files =
        Ask<SettingsFiles>("diag-settings", [directory] { return ReadSettings(directory); });
    if (!files) return AddKeptSettings(fmt::format("{}: {}", directory, NoAnswer()));
    for (const auto& [name, text] : *files) {
      if (absl::IsNotFound(text.status()) && name == "metal.conf") continue;
      METAL_RETURN_IF_ERROR(text.ok() ? Add("settings/" + name, *text)
                                      : AddUnreadSettings(name, text.status()));
    }
    return absl::OkStatus();
  }

  // The files as they were when their disk was well.
  absl::Status AddKeptSettings(const std::string& why) {
    absl::Time oldest = absl::InfiniteFuture();
    for (const auto& [name, file] : *settings_) {
      oldest = std::min(oldest, file.read);
      METAL_RETURN_IF_ERROR(Add("settings/" + name, file.text));
    }
    return Miss("settings", settings_->empty() ? why : AsOf(why, oldest));
  }

  absl::Status AddUnreadSettings(const std::string& name, const absl::Status& status) {
    const std::string why(status.message());
    const auto kept = settings_->find(name);
    if (absl::IsNotFound(status) || kept == settings_->end()) return Miss("settings/" + name, why);
    METAL_RETURN_IF_ERROR(Add("settings/" + name, kept->second.text));
    return Miss("settings/" + name, AsOf(why, kept->second.read));
  }

  static std::string AsOf(const std::string& why, absl::Time time) {
    return fmt::format("{}; what is here is as of {}", why, TimeText(time));
  }

  absl::Status AddManifest() {
    const RecorderState state = parts_.recorder->State();
    JsonObject manifest, missing, recorder;
    manifest.Add("captured", TimeText(now_)).Add("node_id", parts_.config.node_id);
    manifest.Add("reason", redactor_.Clean(request_.reason));
    std::vector<std::string> names;
    for (const std::string& name : archive_.names()) names.push_back(JsonString(name));
    manifest.AddRaw("files", fmt::format("[{}]", fmt::join(names, ",")));
    for (const auto& [name, why] : summary_.missing) missing.Add(name, why);
    manifest.AddRaw("missing", missing.Text());
    recorder.Add("records", static_cast<int64_t>(summary_.records));
    recorder.Add("dropped", static_cast<int64_t>(state.dropped)).Add("error", state.error);
    recorder.Add("behind_us", absl::ToInt64Microseconds(state.behind));
    return AddClean("manifest.json", manifest.AddRaw("recorder", recorder.Text()).Text() + "\n");
  }

  const CaptureParts& parts_;
  PatientCalls& calls_;
  const CaptureRequest& request_;
  const absl::Time now_, since_;
  const std::shared_ptr<const observe::NodeStatus> status_;
  const std::shared_ptr<const SettingsCopy::Kept> settings_;
  const Redactor redactor_;
  Timeline timeline_;
  ArchiveWriter archive_;
  CaptureSummary summary_;
  std::string part_, kernel_;
  int parts_done_ = 0;
};

}  // namespace

absl::StatusOr<CaptureSummary> WriteCapture(const CaptureParts& parts, PatientCalls& calls,
                                            const CaptureRequest& request, const ByteSink& sink) {
  return CaptureRun(parts, calls, request, sink).Run();
}

}  // namespace metal::recorder
