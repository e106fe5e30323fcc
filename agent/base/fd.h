// UniqueFd: owns one file descriptor. Threading: not thread-safe; move between threads freely.
#pragma once

#include <utility>

#include "absl/status/status.h"

namespace metal::base {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd() { Reset(); }
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // Gives the descriptor away without closing it.
  int Release() { return std::exchange(fd_, -1); }
  // Closes and ignores the result: only for descriptors that were not written to.
  void Reset();
  // Closes and reports the result: for descriptors that were written to. EINTR counts as closed.
  absl::Status Close();

 private:
  int fd_ = -1;
};

}  // namespace metal::base
