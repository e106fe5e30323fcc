// RecordStream: the records of a ring in batches, read by a thread of its own, so that a disk that
// hangs keeps nobody waiting for longer than they want to. Memory: two batches.
// Threading: Next and the destructor belong to one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/recorder/record.h"

namespace metal::recorder {

class RecordStream {
 public:
  // Begins to read. Records before `since` are left out.
  RecordStream(const std::string& path, absl::Time since);
  ~RecordStream();  // does not wait
  RecordStream(const RecordStream&) = delete;
  RecordStream& operator=(const RecordStream&) = delete;

  // The next records, oldest first; none at the end. Errors as ReadRing; DEADLINE_EXCEEDED when the
  // disk does not answer, or `stop` said so.
  absl::StatusOr<std::vector<Record>> Next(absl::Duration patience,
                                           const std::function<bool()>& stop);

  static constexpr size_t kBatch = 2000;

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace metal::recorder
