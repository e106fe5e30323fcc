#include "agent/base/toml_text.h"

#include <algorithm>

#include "fmt/format.h"

namespace metal::base {
namespace {

constexpr size_t kDeepest = 64;

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

bool IsWord(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-' ||
         c == '.';
}

bool StartsKey(char c) { return (IsWord(c) && c != '.') || c == '"' || c == '\''; }

// Follows strings, comments and brackets; knows nothing else of TOML.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;  // byte order mark
  }

  std::optional<TextObjection> Run() {
    bool line_start = true;
    while (at_ < text_.size() && objection_.empty()) {
      const char c = text_[at_];
      if (line_start && c == '[' && open_.empty()) CheckHeader();
      line_start = c == '\n' || (line_start && IsBlank(c));
      if (c == '#') {
        SkipUntil([](char each) { return each == '\n'; });
      } else if (c == '"' || c == '\'') {
        if (word_first_ != '\0' && text_[at_ - 1] != '.') Object("quote within a word");
        word_first_ = '\0';
        SkipString(c);
      } else {
        if (static_cast<unsigned char>(c) >= 0x80)
          Object("character beyond ASCII outside a string or comment");
        ObjectToDates(c);
        Follow(c);
        Next();
      }
    }
    if (objection_.empty()) return std::nullopt;
    return TextObjection{line_, objection_};
  }

 private:
  void Object(std::string what) {
    if (objection_.empty()) objection_ = std::move(what);
  }

  // Steps over one character; objects to a control character.
  void Next() {
    const auto c = static_cast<unsigned char>(text_[at_]);
    if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f) {
      Object(fmt::format("control character 0x{:02x}", c));
    }
    if (!objection_.empty()) return;
    if (c == '\n') ++line_;
    ++at_;
  }

  template <typename Predicate>
  void SkipUntil(Predicate stop) {
    while (at_ < text_.size() && objection_.empty() && !stop(text_[at_])) Next();
  }

  void Follow(char c) {
    if (c == '[' || c == '{') open_ += c == '[' ? ']' : '}';
    if (open_.size() > kDeepest) Object("brackets nested too deep");
    if (c != ']' && c != '}') return;
    if (open_.empty() || open_.back() != c) return Object(fmt::format("{} without its opening", c));
    open_.pop_back();
  }

  // A hyphen in a word that starts with a digit and is no exponent, or a colon.
  void ObjectToDates(char c) {
    if (!IsWord(c)) word_first_ = '\0';
    if (IsWord(c) && word_first_ == '\0') word_first_ = c;
    const bool exponent = at_ > 0 && (text_[at_ - 1] == 'e' || text_[at_ - 1] == 'E');
    if (c == ':' || (c == '-' && IsDigit(word_first_) && !exponent)) {
      Object("date or time: no option takes one");
    }
  }

  // REQUIRES: at '[' where a table header stands.
  void CheckHeader() {
    size_t next = at_ + 1;
    if (next < text_.size() && text_[next] == '[') ++next;
    while (next < text_.size() && IsBlank(text_[next])) ++next;
    if (next >= text_.size() || !StartsKey(text_[next])) Object("section header without a name");
  }

  // A string that lacks its end runs to the end of its line, or of the text when it may have many
  // lines.
  void SkipString(char quote) {
    const std::string three(3, quote);
    const bool many_lines = text_.substr(at_).starts_with(three);
    for (size_t i = many_lines ? 3 : 1; i != 0; --i) Next();
    while (at_ < text_.size() && objection_.empty()) {
      const char c = text_[at_];
      if (!many_lines && (c == quote || c == '\n')) {
        if (c == quote) Next();
        return;
      }
      if (many_lines && text_.substr(at_).starts_with(three)) {
        // Up to two quotes may stand right before the three that end it.
        for (size_t i = 0; i < 5 && at_ < text_.size() && text_[at_] == quote; ++i) Next();
        return;
      }
      Next();
      if (c == '\\' && quote == '"' && at_ < text_.size() && text_[at_] != '\n') Next();
    }
  }

  const std::string_view text_;
  size_t at_ = 0;
  size_t line_ = 1;
  char word_first_ = '\0';  // first character of the word that at_ is in
  std::string open_;        // what closes the brackets that are open
  std::string objection_;
};

}  // namespace

std::optional<TextObjection> ObjectToTomlText(std::string_view text) { return Scanner(text).Run(); }

}  // namespace metal::base
