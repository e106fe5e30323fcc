// Text from the world (kernel log, server errors, file names) made fit for protobuf strings. Pure
// functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace metal::base {

// `text` with every byte that is not part of well-formed UTF-8 (RFC 3629), and every NUL, replaced
// by '?'; at most `limit` bytes, cut between characters.
std::string ToValidUtf8(std::string_view text, size_t limit = 4096);

}  // namespace metal::base
