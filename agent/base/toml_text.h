// A look at TOML text before the parser sees it. toml++ 3.3 runs into undefined behaviour on
// characters beyond ASCII outside strings and comments, on a table header that does not start with
// a key, on unmatched brackets and on some malformed dates. TOML allows none of these, and no
// option takes a date. Internal to config.cc. Threading: pure function.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace metal::base {

struct TextObjection {
  size_t line;  // from 1
  std::string what;
};

// The first thing that no TOML file may hold and the parser must not see; nullopt when there is
// none.
std::optional<TextObjection> ObjectToTomlText(std::string_view text);

}  // namespace metal::base
