// JSON for what is small and flat: an object in the order of its members, on one line.
// Threading: not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace metal::recorder {

// `text` in quotes. Bytes that are no UTF-8 become '?'; '<' is written as an escape, so that the
// result may stand inside of HTML.
std::string JsonString(std::string_view text);

class JsonObject {
 public:
  JsonObject& Add(std::string_view name, std::string_view value) {
    return AddRaw(name, JsonString(value));
  }
  JsonObject& Add(std::string_view name, int64_t value) {
    return AddRaw(name, std::to_string(value));
  }
  // `json` is JSON already.
  JsonObject& AddRaw(std::string_view name, std::string_view json);
  std::string Text() const { return "{" + members_ + "}"; }

 private:
  std::string members_;
};

}  // namespace metal::recorder
