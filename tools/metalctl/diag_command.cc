#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/base/status.h"
#include "fmt/format.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/util/time_util.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"
#include "tools/metalctl/watch.h"

namespace metal::ctl {
namespace {

constexpr absl::Duration kSilence = absl::Seconds(30);  // several parts may each cost seconds

// Where the archive goes. Until it is whole it has another name, so that nobody takes half of one.
class Output {
 public:
  explicit Output(const std::string& path) : path_(path), standard_(path == "-") {}
  ~Output() {
    if (fd_.valid() && !standard()) ::unlink(temporary().c_str());
  }

  absl::Status Open() {
    if (standard()) {
      fd_ = base::UniqueFd(::dup(STDOUT_FILENO));
      return fd_.valid() ? absl::OkStatus() : base::ErrnoStatus(errno, "open", "standard output");
    }
    if (base::PathExists(path_)) {
      return base::Error(absl::StatusCode::kAlreadyExists,
                         "{} is there already. HINT: give another --output", path_);
    }
    METAL_ASSIGN_OR_RETURN(fd_, base::OpenFile(temporary(), O_WRONLY | O_CREAT | O_TRUNC, 0600));
    return absl::OkStatus();
  }
  absl::Status Write(const std::string& bytes) {
    bytes_ += bytes.size();
    return base::WriteAll(fd_.get(), bytes, path_);
  }
  absl::Status Finish() {
    if (standard()) return fd_.Close();
    if (::fsync(fd_.get()) != 0) return base::ErrnoStatus(errno, "fsync", temporary());
    METAL_RETURN_IF_ERROR(fd_.Close());
    return base::RenameNoReplace(temporary(), path_);
  }

  bool standard() const { return standard_; }
  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::string temporary() const { return path_ + ".part"; }

  const std::string path_;
  const bool standard_;
  base::UniqueFd fd_;
  uint64_t bytes_ = 0;
};

int FailHere(const Client& client, const absl::Status& status) {
  const auto code = static_cast<grpc::StatusCode>(status.code());
  return client.Fail(ErrorFrom(CodeName(code), std::string(status.message())), ExitCodeOf(code));
}

// Name of the file when none was given. The node says who it is before the archive does.
std::string DefaultName(const Client& client) {
  grpc::ClientContext context;
  client.Prepare(context);
  v1::GetStatusResponse response;
  std::string node = "node";
  if (client.host->GetStatus(&context, {}, &response).ok())
    node = response.status().node().node_id();
  return fmt::format("metal-diag-{}-{}.tar.zst", node,
                     absl::FormatTime("%Y%m%dT%H%M%SZ", absl::Now(), absl::UTCTimeZone()));
}

void Tell(const Client& client, const Output& output, const v1::DiagnosticsSummary& summary) {
  for (const auto& [name, why] : summary.missing())
    client.Note(fmt::format("{} is not in it: {}", name, why));
  if (output.standard()) return;
  if (!client.json()) {
    fmt::print("{}: {}, {} records, {} files. Open {}/timeline.html in a browser.\n", output.path(),
               FormatBytes(static_cast<int64_t>(output.bytes())), summary.records(),
               summary.files_size(), summary.directory());
    return;
  }
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  if (!google::protobuf::util::MessageToJsonString(summary, &text, options).ok()) text = "{}";
  fmt::print("{{\"path\":{},\"bytes\":\"{}\",\"summary\":{}}}\n", JsonString(output.path()),
             output.bytes(), text);
}

}  // namespace

int CaptureDiagnostics(const Client& client, const DiagOptions& options) {
  std::string path = options.output;
  if (path.empty()) path = DefaultName(client);
  Output output(path);
  if (const auto opened = output.Open(); !opened.ok()) return FailHere(client, opened);
  v1::CaptureDiagnosticsRequest request;
  if (options.window > absl::ZeroDuration()) {
    *request.mutable_window() = google::protobuf::util::TimeUtil::MillisecondsToDuration(
        absl::ToInt64Milliseconds(options.window));
  }
  InterruptGuard guard;
  Watch<v1::CaptureDiagnosticsResponse> watch(
      [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
        return client.host->PrepareAsyncCaptureDiagnostics(context, request, queue);
      });
  using Event = Watch<v1::CaptureDiagnosticsResponse>::Event;
  v1::CaptureDiagnosticsResponse piece;
  v1::DiagnosticsSummary summary;
  while (true) {
    const Event event = watch.Next(&piece, kSilence);
    if (event == Event::kInterrupted) return kExitInterrupted;
    if (event == Event::kSilent) {
      return client.Fail(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"));
    }
    if (event == Event::kEnded) break;
    if (const auto put = output.Write(piece.data()); !put.ok()) return FailHere(client, put);
    if (piece.has_summary()) summary = piece.summary();
  }
  if (const grpc::Status status = watch.Finish(); !status.ok()) return client.Fail(status);
  if (const auto finished = output.Finish(); !finished.ok()) return FailHere(client, finished);
  Tell(client, output, summary);
  return kExitOk;
}

}  // namespace metal::ctl
