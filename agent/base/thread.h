// Thread: a named std::thread that joins when it is destroyed. The only place that starts threads.
// Signals are blocked in every thread started here; main alone receives them.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace metal::base {

class Thread {
 public:
  Thread() = default;
  // `name` appears in ps and gdb, cut to 15 characters.
  Thread(std::string name, std::function<void()> body);
  ~Thread() { Join(); }
  Thread(Thread&&) = default;
  Thread& operator=(Thread&& other);
  // Waits for the end. Does nothing when not running or already joined.
  void Join();
  // Lets the thread run on without an owner: only for threads that may hang with a device.
  void Detach();
  bool joinable() const { return thread_.joinable(); }

 private:
  std::thread thread_;
};

// The calling thread gives way, for good, to threads of the usual priority, with a third of their
// weight: for what computes for seconds beside those that answer somebody. Of other control groups
// and sessions the kernel knows only the whole. What it starts afterwards inherits it.
void GiveWay();

}  // namespace metal::base
