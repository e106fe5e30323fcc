#include "agent/backup/wal_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include "agent/backup/wal_connection.h"
#include "agent/backup/wal_prefetch.h"
#include "agent/backup/wal_socket.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/mutex.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr absl::Duration kAnswerTimeout =
    absl::Milliseconds(100);  // for answers of the accepting thread
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);  // when descriptors run out
constexpr absl::Duration kStopGrace = absl::Seconds(5);

WalResponse ResponseOf(const absl::Status& status) {
  WalResponse response;
  if (status.ok()) {
    response.outcome = WalOutcome::kOk;
  } else if (absl::IsNotFound(status)) {
    response.outcome = WalOutcome::kNotFound;
  } else if (absl::IsUnavailable(status) || absl::IsCancelled(status)) {
    response.outcome = WalOutcome::kTryAgain;
  }
  response.message.assign(status.message().data(), status.message().size());
  return response;
}

// Where a file lies that may be filled; nullopt when it may not.
std::optional<dev_t> DeviceOfEmptyWritableFile(int fd) {
  struct stat status;
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH) != 0 ||
      fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size != 0) {
    return std::nullopt;
  }
  return status.st_dev;
}

absl::StatusOr<uint64_t> SizeOf(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return base::ErrnoStatus(errno, "stat", "prefetched WAL");
  return static_cast<uint64_t>(status.st_size);
}

}  // namespace

// What the threads use; owned by all of them, for one may be left behind.
struct WalServer::Shared {
  Shared(WalServerOptions given_options, std::shared_ptr<WalArchive> given_archive,
         base::Clock& given_clock)
      : options(std::move(given_options)),
        archive(std::move(given_archive)),
        clock(given_clock),
        prefetcher(archive, clock) {}

  void WorkerLoop();
  void Serve(WalConnection connection);
  struct Answer {
    WalResponse response;
    base::UniqueFd file;  // valid: goes with the response
  };
  Answer Handle(WalConnection::Received received);
  WalResponse HandlePush(const WalConnection::Received& received);
  Answer HandleFetch(WalConnection::Received received);
  absl::StatusOr<WalPushResult> Push(const WalRequest& request, int fd);
  absl::StatusOr<uint64_t> Fetch(const WalRequest& request, int fd);
  WalConnection Wrap(base::UniqueFd socket) {
    return WalConnection(std::move(socket), clock, [this] { return stopping.load(); });
  }

  const WalServerOptions options;
  const std::shared_ptr<WalArchive> archive;
  base::Clock& clock;
  WalPrefetcher prefetcher;
  std::atomic<bool> stopping{false};

  base::Mutex mutex;
  base::CondVar changed;
  std::deque<base::UniqueFd> waiting ABSL_GUARDED_BY(mutex);  // never more than free workers
  int living ABSL_GUARDED_BY(mutex) = 0;                      // workers and the prefetching thread
  std::multiset<absl::Duration> busy_since ABSL_GUARDED_BY(mutex);  // start of each request at work
  WalServerStatistics statistics ABSL_GUARDED_BY(mutex);
};

void WalServer::Shared::WorkerLoop() {
  base::MutexLock lock(mutex);
  while (true) {
    while (waiting.empty() && !stopping) changed.Wait(mutex);
    if (waiting.empty()) break;
    base::UniqueFd socket = std::move(waiting.front());
    waiting.pop_front();
    const auto since = busy_since.insert(clock.Monotonic().since_start);
    mutex.Unlock();
    Serve(Wrap(std::move(socket)));
    mutex.Lock();
    busy_since.erase(since);
  }
  --living;
  changed.NotifyAll();
}

void WalServer::Shared::Serve(WalConnection connection) {
  auto received = connection.Receive(options.io_timeout);
  if (!received.ok()) {
    const WalResponse response = ResponseOf(received.status());
    const bool harmless =
        response.outcome == WalOutcome::kTryAgain;  // it went away, or the agent stops
    base::Log(harmless ? base::LogLevel::kDebug : base::LogLevel::kWarning, "wal socket: {}",
              response.message);
    (void)connection.Send(response, -1, kAnswerTimeout);  // to whoever still listens
    return;
  }
  const std::string name = received->request.name;
  const Answer answer = Handle(*std::move(received));
  const absl::Status sent = connection.Send(answer.response, answer.file.get(), options.io_timeout);
  if (!sent.ok())
    base::LogWarning("wal socket: answer for {} was not taken: {}", name, sent.ToString());
}

WalServer::Shared::Answer WalServer::Shared::Handle(WalConnection::Received received) {
  if (received.request.operation == WalOperation::kFetch) return HandleFetch(std::move(received));
  return {HandlePush(received), base::UniqueFd()};
}

WalResponse WalServer::Shared::HandlePush(const WalConnection::Received& received) {
  const auto pushed = Push(received.request, received.file.get());
  WalResponse response = ResponseOf(pushed.status());
  {
    base::MutexLock lock(mutex);
    statistics.last_push_error = std::string(pushed.status().message());
  }
  if (pushed.ok()) {
    response.already_present = pushed->already_present;
    response.raw_bytes = pushed->raw_bytes;
    response.stored_bytes = pushed->stored_bytes;
  } else if (response.outcome == WalOutcome::kNotFound) {
    response.outcome = WalOutcome::kFailed;
  }
  return response;
}

WalServer::Shared::Answer WalServer::Shared::HandleFetch(WalConnection::Received received) {
  const WalRequest& request = received.request;
  const auto device = DeviceOfEmptyWritableFile(received.file.get());
  if (!device) {
    return {ResponseOf(base::Error(
                absl::StatusCode::kInvalidArgument,
                "fetch WAL file {}: the target is not an empty regular file that is open for "
                "writing",
                request.name)),
            base::UniqueFd()};
  }
  std::erase_if(received.spares, [&](const base::UniqueFd& spare) {
    return DeviceOfEmptyWritableFile(spare.get()) != device;
  });
  Answer answer;
  // A client without spares cannot use a file of another request.
  if (!received.spares.empty()) {
    answer.file =
        prefetcher.Take(request.system_identifier, request.name, *device, options.io_timeout);
  }
  const absl::StatusOr<uint64_t> size =
      answer.file.valid() ? SizeOf(answer.file.get()) : Fetch(request, received.file.get());
  answer.response = ResponseOf(size.status());
  if (!size.ok()) return answer;
  answer.response.prefetched = answer.file.valid();
  answer.response.raw_bytes = *size;
  prefetcher.Schedule(request.system_identifier, request.name, *size, *device,
                      std::move(received.spares));
  return answer;
}

absl::StatusOr<WalPushResult> WalServer::Shared::Push(const WalRequest& request, int fd) {
  const uint64_t current =
      options.current_system_identifier ? options.current_system_identifier() : 0;
  if (current != 0 && request.system_identifier != 0 && current != request.system_identifier) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "archive WAL file {}: it is of cluster {}, this node runs {}. HINT: "
                       "archive_command of another "
                       "server points at this agent's socket",
                       request.name, request.system_identifier, current);
  }
  return archive->Push(request.name, fd,
                       request.system_identifier != 0 ? request.system_identifier : current);
}

absl::StatusOr<uint64_t> WalServer::Shared::Fetch(const WalRequest& request, int fd) {
  return archive->Fetch(
      request.system_identifier, request.name, [&](std::span<const std::byte> piece) {
        return base::WriteAll(fd, {reinterpret_cast<const char*>(piece.data()), piece.size()},
                              request.name);
      });
}

absl::StatusOr<std::unique_ptr<WalServer>> WalServer::Start(WalServerOptions options,
                                                            std::shared_ptr<WalArchive> archive,
                                                            base::Clock& clock) {
  if (options.workers < 1)
    return base::Error(absl::StatusCode::kInvalidArgument, "WAL server: no workers");
  METAL_ASSIGN_OR_RETURN(base::UniqueFd listener, ListenForWal(options.socket_path));
  base::UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return base::ErrnoStatus(errno, "create", "eventfd");
  auto shared = std::make_shared<Shared>(std::move(options), std::move(archive), clock);
  std::unique_ptr<WalServer> server(
      new WalServer(std::move(shared), std::move(listener), std::move(wake)));
  server->StartThreads();
  return server;
}

WalServer::WalServer(std::shared_ptr<Shared> shared, base::UniqueFd listener, base::UniqueFd wake)
    : shared_(std::move(shared)), listener_(std::move(listener)), wake_(std::move(wake)) {}

WalServer::~WalServer() { Stop(kStopGrace); }

void WalServer::StartThreads() {
  {
    base::MutexLock lock(shared_->mutex);
    shared_->living = shared_->options.workers + 1;
  }
  for (int i = 0; i < shared_->options.workers; ++i) {
    workers_.emplace_back(fmt::format("wal-worker-{}", i),
                          [shared = shared_] { shared->WorkerLoop(); });
  }
  workers_.emplace_back("wal-prefetch", [shared = shared_] {
    shared->prefetcher.Run();
    base::MutexLock lock(shared->mutex);
    --shared->living;
    shared->changed.NotifyAll();
  });
  acceptor_ = base::Thread("wal-accept", [this] { AcceptLoop(); });
}

void WalServer::AcceptLoop() {
  while (!shared_->stopping) {
    pollfd items[] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (poll(items, 2, -1) < 0 && errno != EINTR) {
      base::LogError("wal socket: poll: errno {}", errno);
      shared_->clock.Sleep(kAcceptPause);
    }
    if (shared_->stopping || (items[0].revents & POLLIN) == 0) continue;
    base::UniqueFd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.valid()) {
      Dispatch(std::move(socket));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      base::LogError("wal socket: cannot accept: errno {}", errno);
      shared_->clock.Sleep(kAcceptPause);
    }
  }
}

void WalServer::Dispatch(base::UniqueFd socket) {
  WalConnection connection = shared_->Wrap(base::UniqueFd(fcntl(socket.get(), F_DUPFD_CLOEXEC, 0)));
  const auto user = connection.PeerUser();
  const std::vector<uid_t>& allowed = shared_->options.allowed_users;
  WalResponse refusal;
  {
    base::MutexLock lock(shared_->mutex);
    const bool welcome =
        user.ok() && (*user == 0 || *user == geteuid() ||
                      std::find(allowed.begin(), allowed.end(), *user) != allowed.end());
    if (welcome && std::cmp_less(shared_->busy_since.size() + shared_->waiting.size(),
                                 shared_->options.workers)) {
      shared_->waiting.push_back(std::move(socket));
      shared_->changed.NotifyOne();
      return;
    }
    if (welcome) {
      ++shared_->statistics.turned_away;
      refusal = {
          .outcome = WalOutcome::kTryAgain,
          .message = fmt::format(
              "the agent is busy with {} WAL files. HINT: PostgreSQL tries again; see metalctl "
              "status for the repository's disk",
              shared_->options.workers)};
    } else {
      ++shared_->statistics.refused_users;
      refusal.message =
          "this user may not use the WAL socket. HINT: run as root or as the agent's user";
    }
  }
  if (const absl::Status sent = connection.Send(refusal, -1, kAnswerTimeout); !sent.ok()) {
    base::LogWarning("wal socket: refusal was not taken: {}", sent.ToString());
  }
}

bool WalServer::Stop(absl::Duration grace) {
  if (shared_->stopping.exchange(true)) return true;
  const uint64_t one = 1;
  if (write(wake_.get(), &one, sizeof one) != sizeof one)
    base::LogError("wal socket: cannot wake the accepting thread");
  shared_->prefetcher.Stop();
  acceptor_.Join();
  unlink(shared_->options.socket_path
             .c_str());  // before the listener ends: later the name may be a successor's
  listener_.Reset();
  bool all_ended = false;
  {
    base::MutexLock lock(shared_->mutex);
    shared_->changed.NotifyAll();
    all_ended = shared_->changed.WaitFor(
        shared_->mutex, grace,
        [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return shared_->living == 0; });
  }
  if (!all_ended) {
    shared_->archive->DropEvents();
    base::LogError(
        "wal socket: a request still hangs after {}: the repository's disk does not answer",
        absl::FormatDuration(grace));
  }
  for (base::Thread& worker : workers_) {
    if (all_ended)
      worker.Join();
    else
      worker.Detach();
  }
  return all_ended;
}

WalServerStatistics WalServer::Statistics() {
  base::MutexLock lock(shared_->mutex);
  WalServerStatistics result = shared_->statistics;
  result.prefetched = shared_->prefetcher.hits();
  result.workers = shared_->options.workers;
  result.busy = static_cast<int>(shared_->busy_since.size());
  if (!shared_->busy_since.empty()) {
    result.longest_busy = shared_->clock.Monotonic().since_start - *shared_->busy_since.begin();
  }
  return result;
}

}  // namespace metal::backup
