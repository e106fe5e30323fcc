// Nowhere: a server that takes connections and never answers. A PgBouncer that is started while its
// door is held leads here until it is paused, so that a client of that moment waits instead of
// being let through or turned away. Threading: one thread at a time.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "agent/base/fd.h"
#include "agent/gate/door_record.h"

namespace metal::gate {

class Nowhere {
 public:
  // Listens in <directory>/nowhere, which is made. FAILED_PRECONDITION when the path is too long
  // for a unix socket.
  static absl::StatusOr<std::unique_ptr<Nowhere>> Open(const std::string& directory);
  // Where it is, also when nobody listens there.
  static Target In(const std::string& directory);
  ~Nowhere();
  Nowhere(const Nowhere&) = delete;
  Nowhere& operator=(const Nowhere&) = delete;

 private:
  Nowhere(std::string path, base::UniqueFd socket);
  const std::string path_;
  base::UniqueFd socket_;
};

}  // namespace metal::gate
