// A privileged helper that does what a fence needs of the host in memory. Threading: of one thread.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/harness/refusing_privileges.h"

namespace metal::node {

class FakePrivileges : public metal::testing::RefusingPrivileges {
 public:
  absl::Status RefuseConnections(int port, absl::Duration) override {
    return Do(absl::StrCat("refuse ", port));
  }
  absl::Status AllowConnections(int port, absl::Duration) override {
    return Do(absl::StrCat("allow ", port));
  }
  absl::StatusOr<host::Destroyed> DestroyConnections(int port, const std::vector<pid_t>& spared,
                                                     absl::Duration) override {
    const absl::Status done = Do(absl::StrCat("destroy ", port, " but ", spared.size()));
    if (!done.ok()) return done;
    return host::Destroyed{3, left};
  }
  absl::Status KillServer(pid_t, int, absl::Duration) override { return Do("kill server"); }
  absl::Status FeedWatchdog(const std::string& name, absl::Duration, absl::Duration) override {
    return Do("feed " + name);
  }
  absl::Status StopWatchdog(absl::Duration) override { return Do("stop"); }

  absl::Status answer;  // of all calls
  std::string left;     // why some connections were not destroyed
  std::vector<std::string> asked;

 private:
  absl::Status Do(std::string what) {
    asked.push_back(std::move(what));
    return answer;
  }
};

}  // namespace metal::node
