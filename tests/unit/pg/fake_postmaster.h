// A postmaster for tests: this test binary again, started under the name "postgres". It keeps
// postmaster.pid as a server does, answers the stop signals, and does what the file "fake" in its
// data directory says, one word each line:
//   fail TEXT        prints "FATAL:  TEXT" and ends before it owns the directory
//   ready_after MS   time until line 8 says ready (default 0); never: stays "starting"
//   die_after MS     ends without a word after this time
//   child PORT MS    a child, "postgres: child" by its title, holds the TCP port until that long
//                    after the postmaster has ended, or it is told to end
//   stubborn MODE    ignores that stop signal (smart, fast, immediate)
// Threading: one fixture for each test.
#pragma once

#include <string>

#include "agent/pg/install.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {

// A data directory of version 15 with a real pg_control, a bin directory, a state and a socket
// directory.
class FakeCluster {
 public:
  FakeCluster();
  // Kills what still runs in the data directory.
  ~FakeCluster();

  std::string data_dir() const { return dir_.File("data"); }
  std::string bin_dir() const { return dir_.File("bin"); }
  std::string state_dir() const { return dir_.File("state"); }
  std::string socket_dir() const { return dir_.File("sock"); }
  std::string log_path() const { return dir_.File("state/postgres.log"); }
  const testing::TempDir& dir() const { return dir_; }
  Install& install() { return install_; }
  // Sets what the next start does.
  void Behave(const std::string& words) const { dir_.Write("data/fake", words); }
  // A port that nobody listens on (the fake listens on none without a `child`).
  int port() const { return 1; }
  // One that was free a moment ago.
  static int FreePort();

 private:
  testing::TempDir dir_;
  Install install_{dir_.File("bin")};
};

}  // namespace metal::pg
