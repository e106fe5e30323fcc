// TempDir: a new directory under $TMPDIR (default /tmp), removed with all it holds at the end.
// Threading: not thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace metal::testing {

class TempDir {
 public:
  // Aborts when the directory cannot be made.
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // Full name of `name` inside.
  std::string File(std::string_view name) const;
  // Creates or replaces a file (not durably), with its directories; answers its full name.
  std::string Write(std::string_view name, std::string_view contents) const;

 private:
  std::string path_;
};

}  // namespace metal::testing
