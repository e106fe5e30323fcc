// FileFaults: makes the Nth file call of this process fail, or cuts its power there.
// While one exists, open, write, fsync, fdatasync, syncfs, rename, fchmod, close, mkdir, mknod,
// unlink and symlink of files below `directory` go through it; all else passes untouched. syncfs
// makes all of them durable. The calls are caught by defining the C functions in the test binary,
// so code under test needs no seam of its own. Link order: used by test binaries only. Threading:
// one at a time; the code under test may use threads.
#pragma once

#include <string>
#include <vector>

namespace metal::testing {

enum class FileFaultKind {
  kError,       // the call fails with `error`; nothing happens
  kShortWrite,  // a write stores half of its bytes; other calls succeed
  kPowerLoss,   // this call and all later ones fail with EIO; the destructor drops what no fsync
                // made durable
};

struct FileFault {
  int at_call = 0;  // the Nth caught call, from 1; 0: none
  FileFaultKind kind = FileFaultKind::kError;
  int error = 5;  // errno of kError: EIO
};

class FileFaults {
 public:
  FileFaults(std::string directory, FileFault fault);
  // After kPowerLoss: files written without a later fsync (also with pwrite, which is not counted)
  // become empty, and a rename without a later fsync of its directory is undone.
  ~FileFaults();
  FileFaults(const FileFaults&) = delete;
  FileFaults& operator=(const FileFaults&) = delete;

  // Calls seen, in order: "open path", "fsync path", …
  std::vector<std::string> calls() const;
  // True when the fault was reached.
  bool fired() const;
};

}  // namespace metal::testing
