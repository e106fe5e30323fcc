#include "agent/recorder/diagnostics.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/observe/emit.h"
#include "agent/recorder/fatal_fault.h"

namespace metal::recorder {
namespace {

constexpr int kThreadsMost = 8;
constexpr absl::Duration kFilePatience = absl::Seconds(10);
constexpr absl::Duration kSettingsPatience = absl::Seconds(3);
constexpr std::string_view kEnding = ".tar.zst";
constexpr std::string_view kUnfinished = ".tmp";

// A file that is written by threads which may hang with its disk. Shared with them.
struct CaptureFile {
  std::string path;
  base::UniqueFd fd;

  absl::Status Open() {
    METAL_RETURN_IF_ERROR(base::MakeDirectories(base::DirectoryOf(path)));
    METAL_ASSIGN_OR_RETURN(
        fd, base::OpenFile(path + std::string(kUnfinished), O_WRONLY | O_CREAT | O_TRUNC, 0600));
    return absl::OkStatus();
  }
  absl::Status Publish() {
    const std::string temporary = path + std::string(kUnfinished);
    if (::fsync(fd.get()) != 0) return base::ErrnoStatus(errno, "fsync", temporary);
    METAL_RETURN_IF_ERROR(fd.Close());
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      return base::ErrnoStatus(errno, "rename", temporary);
    return base::SyncDirectory(base::DirectoryOf(path));
  }
};

// Oldest captures first: their names begin with their time.
absl::Status RemoveAllBut(const std::string& directory, size_t kept) {
  METAL_ASSIGN_OR_RETURN(std::vector<std::string> names, base::ListDirectory(directory));
  std::erase_if(names, [&](const std::string& name) {
    if (!name.ends_with(kUnfinished)) return !name.ends_with(kEnding);
    ::unlink(base::JoinPath(directory, name).c_str());  // of an agent that died over it
    return true;
  });
  for (size_t i = 0; i + kept < names.size(); ++i) {
    const std::string path = base::JoinPath(directory, names[i]);
    if (::unlink(path.c_str()) != 0) return base::ErrnoStatus(errno, "remove", path);
  }
  return absl::OkStatus();
}

CaptureParts With(CaptureParts parts, std::shared_ptr<const SettingsCopy> settings) {
  parts.settings = std::move(settings);
  return parts;
}

}  // namespace

Diagnostics::Diagnostics(CaptureParts parts, DiagnosticsOptions options)
    : parts_(With(std::move(parts), settings_)),
      options_(std::move(options)),
      calls_(kThreadsMost),
      thread_("diagnostics", [this] { Run(); }) {}

Diagnostics::~Diagnostics() {
  {
    base::MutexLock lock(mutex_);
    stop_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
}

bool Diagnostics::stopping() {
  base::MutexLock lock(mutex_);
  return stop_;
}

absl::StatusOr<CaptureSummary> Diagnostics::Capture(const CaptureRequest& request,
                                                    const ByteSink& sink) {
  if (!running_.TryLock()) {
    return base::WithReason(base::Error(absl::StatusCode::kAborted,
                                        "another capture runs. HINT: try again in a moment"),
                            {"CAPTURE_RUNNING", {}});
  }
  auto summary = WriteCapture(parts_, calls_, request, sink);
  running_.Unlock();
  return summary;
}

void Diagnostics::OnFatalFault(const observe::Fault& fault) {
  const base::MonotonicTime now = parts_.clock.Monotonic();
  base::MutexLock lock(mutex_);
  if (options_.kept == 0 || wanted_ || (last_ && now - *last_ < options_.pause)) return;
  last_ = now;
  wanted_ = fault;
  changed_.NotifyAll();
}

// Asks the event log, which outlives an agent; what is wanted is in memory alone.
void Diagnostics::TakeMissed() {
  if (options_.kept == 0) return;
  using Events = absl::StatusOr<std::vector<observe::Event>>;
  const auto found = calls_.Run<Events>(
      "diag-missed",
      [log = parts_.events]() -> Events {
        observe::EventFilter filter;
        filter.newest = true;
        filter.type_prefix = kFatalFaultEvent;
        METAL_ASSIGN_OR_RETURN(std::vector<observe::Event> events, log->List(filter));
        filter.type_prefix = kCapturedEvent;
        METAL_ASSIGN_OR_RETURN(std::vector<observe::Event> captured, log->List(filter));
        events.insert(events.end(), captured.begin(), captured.end());
        return events;
      },
      kFilePatience, [this] { return stopping(); });
  if (!found || !found->ok()) return;
  if (const auto missed = MissedFault(**found, parts_.clock.Now(), options_.pause))
    OnFatalFault(*missed);
}

// Only from a disk whose probes come back: a thread that hangs with it cannot be ended.
void Diagnostics::CopySettings() {
  if (!DataDiskIsWell(*parts_.board.Get())) return;
  auto files = calls_.Run<SettingsFiles>(
      "diag-settings", [directory = parts_.config.pg_data_dir] { return ReadSettings(directory); },
      kSettingsPatience, [this] { return stopping(); });
  if (files) settings_->Keep(*std::move(files), parts_.clock.Now());
}

void Diagnostics::Run() {
  TakeMissed();
  while (true) {
    CopySettings();
    const absl::Duration rest =
        settings_->Get()->empty() ? options_.first_settings : options_.settings_interval;
    observe::Fault fault;
    {
      base::MutexLock lock(mutex_);
      const bool asked = changed_.WaitFor(
          mutex_, rest, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return wanted_ || stop_; });
      if (!asked) continue;
      if (changed_.WaitFor(mutex_, options_.settle,
                           [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_; })) {
        return;
      }
      fault = *wanted_;
    }
    CaptureFault(fault);
    base::MutexLock lock(mutex_);
    wanted_.reset();
  }
}

void Diagnostics::CaptureFault(const observe::Fault& fault) {
  CaptureRequest request;
  const std::string message = fault.message.substr(0, fault.message.find(". HINT: "));
  request.reason = fmt::format("{} of {}: {}", fault.fault_class, fault.subject, message);
  request.stop = [this] { return stopping(); };
  const std::string path = base::JoinPath(
      options_.directory,
      fmt::format("{}-{}{}",
                  absl::FormatTime("%Y%m%dT%H%M%SZ", parts_.clock.Now(), absl::UTCTimeZone()),
                  fault.fault_class, kEnding));
  uint64_t bytes = 0;
  const auto summary = CaptureToFile(request, path, bytes);
  if (stopping()) return;
  if (!summary.ok()) {
    observe::Emit(*parts_.events, observe::Severity::kWarning, "diagnostics.failed", fault.subject,
                  fmt::format("diagnostics of {}: {}", fault.fault_class,
                              std::string(summary.status().message())));
    return;
  }
  std::vector<std::string> missing;
  for (const auto& [name, why] : summary->missing) missing.push_back(name);
  observe::Emit(*parts_.events, observe::Severity::kInfo, kCapturedEvent, fault.subject,
                fmt::format("diagnostics of {} are in {}", fault.fault_class, path),
                {{"path", path},
                 {"bytes", fmt::format("{}", bytes)},
                 {"records", fmt::format("{}", summary->records)},
                 {"missing", fmt::format("{}", fmt::join(missing, " "))}});
  RemoveOld();
}

absl::StatusOr<CaptureSummary> Diagnostics::CaptureToFile(const CaptureRequest& request,
                                                          const std::string& path,
                                                          uint64_t& bytes) {
  const auto file = std::make_shared<CaptureFile>();
  file->path = path;
  const auto ask = [&](std::function<absl::Status()> call) -> absl::Status {
    const auto done =
        calls_.Run<absl::Status>("diag-file", std::move(call), kFilePatience, request.stop);
    return done ? *done
                : base::Error(absl::StatusCode::kDeadlineExceeded, "{}: its disk does not answer",
                              path);
  };
  METAL_RETURN_IF_ERROR(ask([file] { return file->Open(); }));
  METAL_ASSIGN_OR_RETURN(CaptureSummary summary,
                         Capture(request, [&](std::string_view piece) -> absl::Status {
                           bytes += piece.size();
                           return ask([file, copy = std::string(piece)] {
                             return base::WriteAll(file->fd.get(), copy, file->path);
                           });
                         }));
  METAL_RETURN_IF_ERROR(ask([file] { return file->Publish(); }));
  return summary;
}

void Diagnostics::RemoveOld() {
  const auto done = calls_.Run<absl::Status>(
      "diag-tidy",
      [directory = options_.directory, kept = static_cast<size_t>(options_.kept)] {
        return RemoveAllBut(directory, kept);
      },
      kFilePatience, [this] { return stopping(); });
  if (done && !done->ok())
    base::LogWarning("event=diagnostics.tidy message=\"{}\"", std::string(done->message()));
}

}  // namespace metal::recorder
