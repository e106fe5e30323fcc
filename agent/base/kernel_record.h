// Decodes one record of /dev/kmsg.
// Source: the kernel's Documentation/ABI/testing/dev-kmsg:
//   "<priority>,<sequence>,<microseconds>,<flags>[,key=value…];<text>\n" and, one line each, the
//   dictionary " KEY=value\n". Bytes that do not print, and '\', come as \xNN.
// Threading: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace metal::base {

struct KernelRecord {
  // RFC 5424's: 0 is the kernel itself. Whoever may write to /dev/kmsg cannot give 0.
  int facility = 0;
  int level = 0;  // 0 emergency … 7 debug
  uint64_t sequence = 0;
  absl::Duration since_boot;  // the kernel's local clock
  bool continues = false;     // a fragment of the line before, which it could not be joined with
  std::string text;           // unescaped; may hold newlines
  std::map<std::string, std::string> dictionary;  // SUBSYSTEM, DEVICE
};

// nullopt when it is not a record.
std::optional<KernelRecord> ParseKernelRecord(std::string_view record);

}  // namespace metal::base
