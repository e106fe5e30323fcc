#include "tests/unit/pg/fake_postmaster.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>

#include "agent/base/check.h"
#include "agent/base/clock.h"
#include "agent/base/fd.h"
#include "agent/base/file.h"
#include "agent/pg/process.h"
#include "tests/unit/pg/golden_control_files.h"

namespace metal::pg {
namespace {

volatile std::sig_atomic_t stop_signal = 0;
void OnSignal(int number) { stop_signal = number; }

std::map<std::string, std::string> ReadBehaviour(const std::string& data_dir) {
  std::ifstream file(data_dir + "/fake");
  std::map<std::string, std::string> words;
  for (std::string line; std::getline(file, line);) {
    const size_t space = line.find(' ');
    words[line.substr(0, space)] = space == std::string::npos ? "" : line.substr(space + 1);
  }
  return words;
}

void WritePid(const std::string& data_dir, const char* status) {
  std::ofstream file(data_dir + "/postmaster.pid.new");
  file << getpid() << "\n"
       << data_dir << "\n"
       << ::time(nullptr) << "\n5432\n/tmp\n\n1 2\n"
       << status << "\n";
  file.close();
  std::rename((data_dir + "/postmaster.pid.new").c_str(), (data_dir + "/postmaster.pid").c_str());
}

int64_t Milliseconds() {
  return absl::ToInt64Milliseconds(base::RealClock().Monotonic().since_start);
}

// The arguments' memory, as ps shows it.
char* title = nullptr;
size_t title_size = 0;

void SetTitle(const char* text) {
  std::memset(title, 0, title_size);
  std::memcpy(title, text, std::min(std::strlen(text), title_size - 1));
}

// A child that goes on listening when its postmaster is gone.
void ForkChild(const std::string& port_and_time) {
  std::istringstream words(port_and_time);
  uint16_t port = 0;
  int64_t linger = 0;
  words >> port >> linger;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 1) != 0) {
    _exit(5);
  }
  const pid_t postmaster = getpid();
  if (fork() != 0) {
    close(listener);
    return;
  }
  SetTitle("postgres: child");
  while (getppid() == postmaster) base::RealClock().Sleep(absl::Milliseconds(2));
  base::RealClock().Sleep(absl::Milliseconds(linger));
  _exit(0);
}

[[noreturn]] void RunFakePostmaster(const std::string& data_dir) {
  auto words = ReadBehaviour(data_dir);
  if (words.contains("fail")) {
    std::fprintf(stderr, "2026-11-22 03:00:00.000 UTC [%d] FATAL:  %s\n", getpid(),
                 words["fail"].c_str());
    _exit(1);
  }
  if (chdir(data_dir.c_str()) != 0) _exit(2);
  if (words.contains("child")) ForkChild(words["child"]);
  const std::string stubborn = words["stubborn"];
  std::signal(SIGTERM, stubborn == "smart" ? SIG_IGN : OnSignal);
  std::signal(SIGINT, stubborn == "fast" ? SIG_IGN : OnSignal);
  std::signal(SIGQUIT, stubborn == "immediate" ? SIG_IGN : OnSignal);
  WritePid(data_dir, "starting");
  const int64_t start = Milliseconds();
  bool ready = false;
  while (stop_signal == 0) {
    const int64_t age = Milliseconds() - start;
    if (!ready && words["ready_after"] != "never" &&
        age >= std::atoll(words["ready_after"].c_str())) {
      WritePid(data_dir, "ready   ");
      ready = true;
    }
    if (words.contains("die_after") && age >= std::atoll(words["die_after"].c_str())) _exit(3);
    base::RealClock().Sleep(absl::Milliseconds(2));
  }
  unlink((data_dir + "/postmaster.pid").c_str());
  _exit(0);
}

// Runs before main: under the name "postgres" this program is no test.
[[gnu::constructor]] void BecomePostmaster(int argc, char** argv) {
  const char* const slash = argc > 0 ? std::strrchr(argv[0], '/') : nullptr;
  if (slash == nullptr || std::strcmp(slash, "/postgres") != 0) return;
  if (argc > 1 && std::strcmp(argv[1], "--version") == 0) {
    std::puts("postgres (PostgreSQL) 15.20");
    std::fflush(stdout);
    _exit(0);
  }
  title = argv[0];
  title_size = static_cast<size_t>(argv[argc - 1] + std::strlen(argv[argc - 1]) - argv[0]);
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "-D") == 0) RunFakePostmaster(std::string(argv[i + 1]));
  }
  _exit(4);
}

}  // namespace

FakeCluster::FakeCluster() {
  const std::vector<std::byte> control = golden::Bytes(golden::kControlFiles[1]);
  dir_.Write("data/global/pg_control",
             {reinterpret_cast<const char*>(control.data()), control.size()});
  dir_.Write("data/PG_VERSION", "15\n");
  dir_.Write("data/pg_wal/x", "");
  dir_.Write("state/x", "");
  dir_.Write("sock/x", "");
  dir_.Write("bin/x", "");
  METAL_CHECK(chmod(data_dir().c_str(), 0700) == 0);
  char self[4096] = {};
  METAL_CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  METAL_CHECK(symlink(self, dir_.File("bin/postgres").c_str()) == 0);
}

int FakeCluster::FreePort() {
  const base::UniqueFd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  METAL_CHECK(bind(probe.get(), generic, length) == 0);
  METAL_CHECK(getsockname(probe.get(), generic, &length) == 0);
  return ntohs(address.sin_port);
}

FakeCluster::~FakeCluster() {
  for (const pid_t pid : ListServerProcesses({data_dir(), bin_dir()})) {
    const auto process = Postmaster::Open(pid);
    if (process.ok() && (*process)->Signal(SIGKILL).ok()) (*process)->WaitExit(absl::Seconds(5));
  }
}

}  // namespace metal::pg
