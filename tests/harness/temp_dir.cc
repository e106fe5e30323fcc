#include "tests/harness/temp_dir.h"

#include <fcntl.h>

#include <cstdlib>

#include "agent/base/check.h"
#include "agent/base/file.h"

namespace metal::testing {

TempDir::TempDir() {
  const char* root = std::getenv("TMPDIR");
  path_ = base::JoinPath(root == nullptr || *root == '\0' ? "/tmp" : root, "metal-test-XXXXXX");
  METAL_CHECK(mkdtemp(path_.data()) != nullptr);
}

TempDir::~TempDir() { base::RemoveTree(path_).IgnoreError(); }

std::string TempDir::File(std::string_view name) const { return base::JoinPath(path_, name); }

std::string TempDir::Write(std::string_view name, std::string_view contents) const {
  const std::string file = File(name);
  METAL_CHECK(base::MakeDirectories(base::DirectoryOf(file)).ok());
  auto fd = base::OpenFile(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  METAL_CHECK(fd.ok());
  METAL_CHECK(base::WriteAll(fd->get(), contents, file).ok());
  METAL_CHECK(fd->Close().ok());
  return file;
}

}  // namespace metal::testing
