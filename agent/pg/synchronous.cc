#include "agent/pg/synchronous.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>

#include "agent/base/status.h"

namespace metal::pg {
namespace {

using Names = std::set<std::string>;

absl::Status Bad(std::string_view text, std::string_view why) {
  return base::Error(absl::StatusCode::kInvalidArgument,
                     "synchronous standbys \"{}\": {}. HINT: for example ANY 1 (node-b, node-c)",
                     text, why);
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  // The next token: a word, a quoted name (quoted = true), or one of ( ) ,; empty at the end.
  absl::StatusOr<std::string> Next(bool& quoted) {
    quoted = false;
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    if (at_ == text_.size()) return std::string();
    const char c = text_[at_];
    if (c == '(' || c == ')' || c == ',') {
      ++at_;
      return std::string(1, c);
    }
    if (c == '"') {
      quoted = true;
      return Quoted();
    }
    const size_t start = at_;
    while (at_ < text_.size() && text_.substr(at_, 1).find_first_of(" \t\r\n(),\"") != 0) ++at_;
    return std::string(text_.substr(start, at_ - start));
  }

 private:
  absl::StatusOr<std::string> Quoted() {
    std::string name;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] != '"') {
        name += text_[at_];
      } else if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
        name += '"';
        ++at_;
      } else {
        ++at_;
        return name;
      }
    }
    return Bad(text_, "a quote is not closed");
  }

  std::string_view text_;
  size_t at_ = 0;
};

std::string Lower(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

Names NamesOf(const SynchronousPolicy& policy) {
  return {policy.names.begin(), policy.names.end()};
}

// The subsets of `all` as bit masks: the sets here are the nodes of one shard.
constexpr size_t kMostNames = 16;

// What must acknowledge under FIRST count when all are there is the first `count`; but when some
// are gone the next take their place: a commit is acknowledged by some `count` of them.
bool Satisfies(const Names& acknowledged, const SynchronousPolicy& policy) {
  int found = 0;
  for (const std::string& name : policy.names) found += acknowledged.contains(name) ? 1 : 0;
  return found >= policy.count;
}

}  // namespace

absl::Status CheckPolicy(const SynchronousPolicy& policy) {
  const std::string text = RenderPolicy(policy);
  if (policy.count < 0) return Bad(text, "a negative number");
  if (policy.count == 0) return absl::OkStatus();
  if (policy.names.size() > kMostNames) return Bad(text, "more than 16 names");
  if (static_cast<size_t>(policy.count) > policy.names.size()) {
    return Bad(text, "more acknowledgements than names: every commit would wait for ever");
  }
  if (NamesOf(policy).size() != policy.names.size()) return Bad(text, "a name comes twice");
  for (const std::string& name : policy.names) {
    if (name.empty() || name.find_first_of(std::string_view("\n\r\0", 3)) != std::string::npos) {
      return Bad(text, "an empty name, or one with a line break");
    }
    if (name == "*") return Bad(text, "\"*\" lets any follower acknowledge, also a passing one");
  }
  return absl::OkStatus();
}

std::string RenderPolicy(const SynchronousPolicy& policy) {
  if (policy.count == 0) return "";
  std::string text = fmt::format("{} {} (", policy.any ? "ANY" : "FIRST", policy.count);
  for (size_t i = 0; i < policy.names.size(); ++i) {
    text += i == 0 ? "\"" : ", \"";
    for (const char c : policy.names[i]) {
      if (c == '"') text += '"';
      text += c;
    }
    text += '"';
  }
  return text + ")";
}

absl::StatusOr<SynchronousPolicy> ParsePolicy(std::string_view text) {
  SynchronousPolicy policy;
  Scanner scanner(text);
  bool quoted = false;
  METAL_ASSIGN_OR_RETURN(std::string token, scanner.Next(quoted));
  if (token.empty() && !quoted) return policy;
  policy.any = false;
  policy.count = 1;
  const std::string word = quoted ? "" : Lower(token);
  bool list = word == "any" || word == "first";
  if (list) {
    policy.any = word == "any";
    METAL_ASSIGN_OR_RETURN(token, scanner.Next(quoted));
  }
  int count = 0;
  const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), count);
  if (!quoted && error == std::errc() && end == token.data() + token.size()) {
    policy.count = count;
    list = true;
    METAL_ASSIGN_OR_RETURN(token, scanner.Next(quoted));
  } else if (list) {
    return Bad(text, "no number after ANY or FIRST");
  }
  if (list) {
    if (token != "(" || quoted) return Bad(text, "no list in parentheses");
    METAL_ASSIGN_OR_RETURN(token, scanner.Next(quoted));
  }
  while (true) {
    if (!quoted && (token.empty() || token == "(" || token == ")" || token == ",")) {
      return Bad(text, "a name is missing");
    }
    policy.names.push_back(quoted ? token : Lower(token));
    METAL_ASSIGN_OR_RETURN(token, scanner.Next(quoted));
    if (quoted || token != ",") break;
    METAL_ASSIGN_OR_RETURN(token, scanner.Next(quoted));
  }
  if (list) {
    if (quoted || token != ")") return Bad(text, "the list is not closed");
    METAL_ASSIGN_OR_RETURN(token, scanner.Next(quoted));
  }
  if (quoted || !token.empty()) return Bad(text, "words after the list");
  return policy;
}

bool Implies(const SynchronousPolicy& stronger, const SynchronousPolicy& weaker) {
  if (weaker.count == 0) return true;
  if (stronger.names.size() > kMostNames) return false;
  for (uint32_t mask = 0; mask < uint32_t{1} << stronger.names.size(); ++mask) {
    Names acknowledged;
    for (size_t i = 0; i < stronger.names.size(); ++i) {
      if ((mask >> i & 1) != 0) acknowledged.insert(stronger.names[i]);
    }
    if (Satisfies(acknowledged, stronger) && !Satisfies(acknowledged, weaker)) return false;
  }
  return true;
}

std::optional<SynchronousPolicy> Between(const SynchronousPolicy& before,
                                         const SynchronousPolicy& after) {
  if (Implies(before, after) || Implies(after, before)) return std::nullopt;
  SynchronousPolicy both;
  both.names = before.names;
  for (const std::string& name : after.names) {
    if (std::ranges::find(both.names, name) == both.names.end()) both.names.push_back(name);
  }
  for (both.count = 1; both.count < static_cast<int>(both.names.size()); ++both.count) {
    if (Implies(both, before) && Implies(both, after)) break;
  }
  return both;
}

}  // namespace metal::pg
