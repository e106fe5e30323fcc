// CloneSender: the source's side of the data connections. The ring thread submits messages; the
// thread of each connection takes them, checks and encodes frames while they are hot in its cache,
// sends them, and gives them back once the target has acknowledged them. What a connection had
// under way when it broke goes to the others, or waits for one to come back. Memory: the messages
// submitted, which the ring thread bounds. Threading: Serve on each connection's thread; Fail
// and Finish on any; the rest on the ring thread.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/backup/clone_protocol.h"
#include "agent/backup/frame_job.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/mutex.h"
#include "agent/base/throttle.h"
#include "agent/transfer/channel.h"

namespace metal::backup {

inline constexpr size_t kCloneLinksMax = 8;

// One message on its way to the target.
struct CloneOutgoing {
  CloneMessage type = CloneMessage::kRecords;
  uint64_t sequence = 0;    // given by Submit
  std::string body;         // kData: made from `data` when the frame is ready
  FrameJob* job = nullptr;  // kData
  CloneData data;           // kData: one for each piece of the job that holds bytes
  bool prepared = false;
};
using CloneOutgoingPtr = std::unique_ptr<CloneOutgoing>;

class CloneSender {
 public:
  struct Options {
    std::function<void()> wake;                         // interrupts the ring thread's wait
    absl::Duration first_patience = absl::Minutes(10);  // until the first connection comes
    absl::Duration patience = absl::Seconds(60);        // until one comes back
    size_t window = 8;                                  // unacknowledged messages of a connection
    uint64_t rate_limit = 0;
    base::Throttle* throttle = nullptr;  // of all that read the data directory; may be null
  };
  CloneSender(Options options, base::Clock& clock);

  // ---- ring thread ----
  void Submit(CloneOutgoingPtr message);
  // Appends what was acknowledged, or needed no sending.
  void TakeAcknowledged(std::vector<CloneOutgoingPtr>& out);
  bool PrepareToSleep();
  size_t outstanding() const { return outstanding_; }
  // The first failure of a connection's thread that ends the clone; UNAVAILABLE when no connection
  // came back in time.
  absl::Status Check();

  // ---- any thread ----
  // Every connection tells the target why and ends. The first call counts.
  void Fail(const absl::Status& why);
  // Everything was acknowledged: connections end. So do later ones.
  void Finish();

  // Blocks until no connection is served any more. REQUIRES: Fail or Finish was called: then no
  // connection touches a frame again.
  void AwaitAlone();

  // ---- a connection's thread ----
  // Sends until the clone or the connection ends. RESOURCE_EXHAUSTED when there are too many.
  absl::Status Serve(transfer::Channel& channel);

 private:
  struct Link {
    base::UniqueFd wake;  // eventfd
    size_t worker = 0;
    bool sleeping = false;                        // waits for work
    std::deque<CloneOutgoingPtr> unacknowledged;  // in the order in which they were sent
  };

  absl::StatusOr<std::list<Link>::iterator> AddLink();
  void RemoveLink(std::list<Link>::iterator link);
  absl::Status ServeLink(transfer::Channel& channel, Link& link);
  CloneOutgoingPtr Take(Link& link);
  absl::Status Prepare(CloneOutgoing& message, size_t worker);
  absl::Status Send(transfer::Channel& channel, Link& link, CloneOutgoingPtr message);
  absl::Status Pace(transfer::Channel& channel, uint64_t bytes, uint64_t read);
  absl::Status TakeAnswers(transfer::Channel& channel, Link& link, absl::Duration timeout);
  absl::Status TakeAnswer(transfer::Channel& channel, Link& link);
  void Acknowledge(CloneOutgoingPtr message);
  static void Wake(Link& link);
  // `count` links that have nothing to do.
  void WakeForWork(size_t count) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  base::Clock& clock_;
  base::Throttle throttle_;
  uint64_t last_sequence_ = 0;  // of the ring thread
  size_t outstanding_ = 0;      // of the ring thread

  base::Mutex mutex_;
  base::CondVar paced_, left_;
  std::deque<CloneOutgoingPtr> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<CloneOutgoingPtr> acknowledged_ ABSL_GUARDED_BY(mutex_);
  std::list<Link> links_ ABSL_GUARDED_BY(mutex_);
  std::set<size_t> free_workers_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool ring_sleeps_ ABSL_GUARDED_BY(mutex_) = false;
  bool attached_once_ ABSL_GUARDED_BY(mutex_) = false;
  base::MonotonicTime alone_since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace metal::backup
