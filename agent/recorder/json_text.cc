#include "agent/recorder/json_text.h"

#include "agent/base/utf8.h"
#include "fmt/format.h"

namespace metal::recorder {

std::string JsonString(std::string_view text) {
  std::string json = "\"";
  for (const char c : base::ToValidUtf8(text, text.size())) {
    switch (c) {
      case '"':
        json += "\\\"";
        break;
      case '\\':
        json += "\\\\";
        break;
      case '\n':
        json += "\\n";
        break;
      case '<':
        json += "\\u003c";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          json += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          json += c;
        }
    }
  }
  return json + '"';
}

JsonObject& JsonObject::AddRaw(std::string_view name, std::string_view json) {
  if (!members_.empty()) members_ += ',';
  members_ += JsonString(name);
  members_ += ':';
  members_ += json;
  return *this;
}

}  // namespace metal::recorder
