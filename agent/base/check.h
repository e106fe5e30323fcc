// METAL_CHECK: aborts the process when an invariant of our own is broken. For conditions of the
// world use absl::Status. Threading: any thread.
#pragma once

namespace metal::base {

// Prints `file:line: check failed: expression` to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression);

}  // namespace metal::base

#define METAL_CHECK(condition)                                    \
  do {                                                            \
    if (!(condition)) [[unlikely]] {                              \
      ::metal::base::CheckFailed(__FILE__, __LINE__, #condition); \
    }                                                             \
  } while (false)
