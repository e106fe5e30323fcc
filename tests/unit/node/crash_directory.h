// A directory that a death test's re-executed child shares with its parent: the child must leave
// its half-done files where the parent looks. Threading: main thread only.
#pragma once

#include <cstdlib>
#include <string>

#include "tests/harness/temp_dir.h"

namespace metal::node {

class CrashDirectory {
 public:
  explicit CrashDirectory(const char* variable) : variable_(variable) {
    const char* inherited = std::getenv(variable);
    child_ = inherited != nullptr;
    if (!child_) ::setenv(variable, own_.path().c_str(), 1);
    path_ = std::getenv(variable);
  }
  ~CrashDirectory() {
    if (!child_) ::unsetenv(variable_);
  }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  const char* const variable_;
  testing::TempDir own_;
  bool child_ = false;
  std::string path_;
};

}  // namespace metal::node
