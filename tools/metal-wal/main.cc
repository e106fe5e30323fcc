// metal-wal: PostgreSQL's archive_command and restore_command. See options.cc for the help text.
#include <cstdio>

#include "tools/metal-wal/options.h"
#include "tools/metal-wal/transfer.h"

int main(int argc, char** argv) {
  using metal::wal::Options;
  std::string error;
  const auto options = metal::wal::ParseOptions(argc, argv, error);
  if (!options) {
    fprintf(stderr, "metal-wal: %s. HINT: metal-wal --help\n", error.c_str());
    return metal::wal::kUsage;
  }
  switch (options->command) {
    case Options::Command::kPush:
      return metal::wal::Push(*options);
    case Options::Command::kFetch:
      return metal::wal::Fetch(*options);
    case Options::Command::kVersion:
      puts("metal-wal " METAL_VERSION);
      return metal::wal::kDone;
    case Options::Command::kHelp:
      break;
  }
  fputs(metal::wal::kHelpText, stdout);
  return metal::wal::kDone;
}
