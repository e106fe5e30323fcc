// ParseSettings and ReadSettingLines of settings.h. Source: PostgreSQL
// src/backend/utils/misc/guc-file.l.
#include <cctype>

#include "agent/base/status.h"
#include "agent/pg/settings.h"

namespace metal::pg {
namespace {

bool IsNameChar(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '$' ||
         (static_cast<unsigned char>(c) & 0x80) != 0;
}

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

char UnescapeChar(char c) {
  switch (c) {
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return c;
  }
}

// Reads one line of a configuration file.
class LineReader {
 public:
  explicit LineReader(std::string_view line) : line_(line) {}

  // False: the line has no setting. An empty optional of `error` means success.
  bool Read(std::string& name, std::string& value, std::string& error) {
    SkipBlanks();
    if (AtEnd()) return false;
    const size_t start = position_;
    while (position_ < line_.size() && IsNameChar(line_[position_])) ++position_;
    name = LowerCase(line_.substr(start, position_ - start));
    if (name.empty()) return Fail("a setting's name", error);
    SkipBlanks();
    if (position_ < line_.size() && line_[position_] == '=') ++position_;
    SkipBlanks();
    if (AtEnd()) return Fail("a value", error);
    if (line_[position_] == '\'' ? !ReadQuoted(value) : !ReadBare(value))
      return Fail("a value", error);
    SkipBlanks();
    return AtEnd() ? true : Fail("the end of the line", error);
  }

 private:
  bool AtEnd() const { return position_ >= line_.size() || line_[position_] == '#'; }
  void SkipBlanks() {
    while (position_ < line_.size() &&
           std::isspace(static_cast<unsigned char>(line_[position_])) != 0)
      ++position_;
  }
  static bool Fail(std::string_view expected, std::string& error) {
    error = fmt::format("expected {}", expected);
    return false;
  }
  bool ReadBare(std::string& value) {
    const size_t start = position_;
    while (!AtEnd() && std::isspace(static_cast<unsigned char>(line_[position_])) == 0) ++position_;
    value = std::string(line_.substr(start, position_ - start));
    return !value.empty() && value.find('\'') == std::string::npos;
  }
  bool ReadQuoted(std::string& value) {
    value.clear();
    for (++position_; position_ < line_.size(); ++position_) {
      const char c = line_[position_];
      if (c == '\'') {
        ++position_;
        if (position_ >= line_.size() || line_[position_] != '\'') return true;
        value += '\'';
      } else if (c == '\\' && position_ + 1 < line_.size()) {
        ++position_;
        if (line_[position_] >= '0' && line_[position_] <= '7') {
          ReadOctal(value);
        } else {
          value += UnescapeChar(line_[position_]);
        }
      } else {
        value += c;
      }
    }
    return false;
  }
  // Up to three octal digits, of which the first is at position_.
  void ReadOctal(std::string& value) {
    int number = 0;
    size_t digits = 0;
    while (digits < 3 && position_ + digits < line_.size() && line_[position_ + digits] >= '0' &&
           line_[position_ + digits] <= '7') {
      number = number * 8 + (line_[position_ + digits] - '0');
      ++digits;
    }
    position_ += digits - 1;
    value += static_cast<char>(number);
  }

  std::string_view line_;
  size_t position_ = 0;
};

bool IsInclude(std::string_view name) {
  return name == "include" || name == "include_if_exists" || name == "include_dir";
}

}  // namespace

absl::Status ReadSettingLines(
    std::string_view text,
    const std::function<absl::Status(const std::string& name, const std::string& value)>& line_of) {
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    std::string name, value, error;
    if (LineReader(line).Read(name, value, error)) {
      METAL_RETURN_IF_ERROR(line_of(name, value));
    } else if (!error.empty()) {
      return base::Error(absl::StatusCode::kInvalidArgument, "line {}: {} near \"{}\"", number,
                         error, line.substr(0, 60));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SettingMap> ParseSettings(std::string_view text) {
  SettingMap settings;
  METAL_RETURN_IF_ERROR(
      ReadSettingLines(text, [&](const std::string& name, const std::string& value) {
        if (!IsInclude(name)) settings[name] = value;
        return absl::OkStatus();
      }));
  return settings;
}

}  // namespace metal::pg
