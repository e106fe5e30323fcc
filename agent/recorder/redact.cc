#include "agent/recorder/redact.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace metal::recorder {
namespace {

// A name that ends in one of these names a secret. Lower case, without '_' and '-'.
constexpr std::array<std::string_view, 16> kSecretEndings = {
    "password",    "passwd",        "passphrase", "pwd",
    "secret",      "token",         "credential", "apikey",
    "accesskey",   "secretkey",     "privatekey", "encryptionkey",
    "credentials", "authorization", "passcode",   "passphrasecommand"};

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool IsBlank(char c) { return c == ' ' || c == '\t'; }
bool IsSpace(char c) { return IsBlank(c) || c == '\n' || c == '\r'; }
bool IsQuote(char c) { return c == '\'' || c == '"' || c == '`'; }
bool IsWord(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '-';
}
bool IsHex(char c) {
  const char lower = Lower(c);
  return (lower >= '0' && lower <= '9') || (lower >= 'a' && lower <= 'f');
}

bool BeginsWithoutCase(std::string_view text, std::string_view word) {
  return text.size() >= word.size() && std::equal(word.begin(), word.end(), text.begin(),
                                                  [](char a, char b) { return a == Lower(b); });
}

// The text from `at` on while `take` holds.
template <typename Take>
size_t EndOf(std::string_view text, size_t at, Take take) {
  while (at < text.size() && take(text[at])) ++at;
  return at;
}

// End of the name at `at`; "--" is no part of one, so that "n-----BEGIN" is two things.
size_t EndOfName(std::string_view text, size_t at) {
  const size_t end = EndOf(text, at, IsWord);
  const size_t dashes = text.substr(0, end).find("--", at);
  return std::max(std::min(end, dashes), at + 1);
}

// What opens a quoted value at `at`: quotes as they are, doubled, or with backslashes before, as
// text in text is written. Empty: the value is not quoted.
std::string_view OpenerAt(std::string_view text, size_t at) {
  const size_t quote = EndOf(text, at, [](char c) { return c == '\\'; });
  if (quote == text.size() || !IsQuote(text[quote])) return {};
  size_t end = quote + 1;
  const bool doubled = end < text.size() && text[end] == text[quote];
  // '' and nothing after it is an empty value; '' before more is a quote inside of quotes.
  if (doubled && end + 1 < text.size() && IsWord(text[end + 1])) ++end;
  return text.substr(at, end - at);
}

// Where the value that begins at `at` ends, its closing quotes left out.
size_t EndOfValue(std::string_view text, size_t at, std::string_view opener) {
  if (opener.empty()) {
    while (at < text.size() && !IsSpace(text[at]) && !IsQuote(text[at])) {
      at += text[at] == '\\' && at + 1 < text.size() && !IsSpace(text[at + 1]) ? 2 : 1;
    }
    return std::min(at, text.size());
  }
  const bool plain = opener.size() == 1;
  while (at < text.size()) {
    if (plain && text[at] == '\\' && at + 1 < text.size()) {
      at += 2;
      continue;
    }
    if (text.substr(at, opener.size()) == opener) {
      // A doubled quote inside of a plainly quoted value belongs to it.
      if (!plain || at + 1 >= text.size() || text[at + 1] != opener[0]) return at;
      at += 2;
      continue;
    }
    ++at;
  }
  return text.size();
}

struct Span {
  size_t from = 0, to = 0;  // what is replaced
};

// After a secret's name from `name` to `at`: its value, if one follows.
bool FindValue(std::string_view text, size_t name, size_t at, Span& found) {
  size_t next = EndOf(text, at, [](char c) { return c == '\\' || IsQuote(c); });  // "name":
  next = EndOf(text, next, IsBlank);
  const bool assigned = next < text.size() && (text[next] == '=' || text[next] == ':');
  if (assigned) next = EndOf(text, next + 1, [](char c) { return c == '=' || c == '>'; });
  next = EndOf(text, next, IsBlank);
  const std::string_view opener = OpenerAt(text, next);
  const bool option = name >= 2 && text.substr(name - 2, 2) == "--";  // --token VALUE
  if (!assigned && next == at) return false;
  if (!assigned && !option && opener.empty()) return false;  // no more than a word in a text
  found.from = next + opener.size();
  found.to = EndOfValue(text, found.from, opener);
  // "Authorization: Bearer x", "Basic x": the scheme is no secret, what follows is.
  while (assigned && opener.empty() && found.to < text.size() && IsBlank(text[found.to]) &&
         (BeginsWithoutCase(text.substr(found.from), "bearer ") ||
          BeginsWithoutCase(text.substr(found.from), "basic "))) {
    found.from = EndOf(text, found.to, IsBlank);
    found.to = EndOfValue(text, found.from, {});
  }
  return found.to > found.from;
}

// "scheme://user:password@host" with "://" at `at`.
bool FindUrlPassword(std::string_view text, size_t at, Span& found) {
  const size_t begin = at + 3;
  const size_t end = EndOf(text, begin, [](char c) { return !IsSpace(c) && !IsQuote(c); });
  const std::string_view authority = text.substr(begin, end - begin);
  const size_t host = authority.substr(0, authority.find('/')).rfind('@');
  // A password may hold a '/' that nobody escaped.
  const size_t sign = host != std::string_view::npos ? host : authority.rfind('@');
  const size_t colon = authority.find(':');
  if (sign == std::string_view::npos || colon == std::string_view::npos || colon > sign)
    return false;
  found = {begin + colon + 1, begin + sign};
  return found.to > found.from;
}

bool FindPrivateKey(std::string_view text, size_t at, Span& found) {
  constexpr std::string_view kBegin = "-----BEGIN ", kKey = "PRIVATE KEY-----", kEnd = "-----END ";
  if (!text.substr(at).starts_with(kBegin)) return false;
  const size_t key = text.find(kKey, at);
  // "RSA ", "EC ", "ENCRYPTED " or nothing.
  const auto kind = [](char c) { return (c >= 'A' && c <= 'Z') || c == ' '; };
  if (key == std::string_view::npos || EndOf(text, at + kBegin.size(), kind) < key) return false;
  const size_t end = text.find(kEnd, key);
  found = {key + kKey.size(), end == std::string_view::npos ? text.size() : end};
  return found.to > found.from;
}

// Hashes of passwords, and keys known by their form, that begin at `at`.
bool FindSecretByForm(std::string_view text, size_t at, Span& found) {
  const std::string_view rest = text.substr(at);
  const auto take = [&](size_t skip, auto belongs) {
    found = {at + skip, EndOf(text, at + skip, belongs)};
    return found.to > found.from;
  };
  const auto token = [](char c) { return !IsSpace(c) && !IsQuote(c) && c != ',' && c != '\\'; };
  if (rest.starts_with("SCRAM-SHA-256$")) return take(14, token);
  if (BeginsWithoutCase(rest, "bearer ")) return take(7, token) && found.to - found.from >= 8;
  if (rest.starts_with("AKIA") || rest.starts_with("ASIA"))
    return take(4, IsWord) && found.to - found.from >= 16;
  if (rest.starts_with("md5")) return take(3, IsHex) && found.to - found.from == 32;
  return false;
}

}  // namespace

bool NamesSecret(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (c != '_' && c != '-') plain += Lower(c);
  }
  return std::ranges::any_of(kSecretEndings,
                             [&](std::string_view ending) { return plain.ends_with(ending); });
}

Redactor::Redactor(const std::vector<std::string>& known) {
  for (const std::string& secret : known) {
    if (secret.size() >= 4) known_.push_back(secret);
  }
  std::ranges::sort(known_, std::greater(), &std::string::size);
}

std::string Redactor::Clean(std::string_view text) const {
  std::string clean;
  clean.reserve(text.size());
  size_t kept = 0;  // all before is in `clean`
  const auto remove = [&](const Span& span) {
    clean.append(text, kept, span.from - kept);
    clean += kRemoved;
    kept = span.to;
    return span.to;
  };
  size_t at = 0;
  while (at < text.size()) {
    Span found;
    const char c = text[at];
    // A name is taken whole, so a '-' before it is no part of another one.
    const bool word_begins =
        IsWord(c) && c != '-' && (at == 0 || !IsWord(text[at - 1]) || text[at - 1] == '-');
    if (c == ':' && text.substr(at).starts_with("://") && FindUrlPassword(text, at, found)) {
      at = remove(found);
    } else if (c == '-' && FindPrivateKey(text, at, found)) {
      at = remove(found);
    } else if (word_begins && FindSecretByForm(text, at, found)) {
      at = remove(found);
    } else if (word_begins) {
      const size_t end = EndOfName(text, at);
      const bool secret = NamesSecret(text.substr(at, end - at));
      at = secret && FindValue(text, at, end, found) ? remove(found) : end;
    } else {
      ++at;
    }
  }
  clean.append(text, kept);
  for (const std::string& secret : known_) {
    for (size_t found = clean.find(secret); found != std::string::npos;
         found = clean.find(secret, found + kRemoved.size())) {
      clean.replace(found, secret.size(), kRemoved);
    }
  }
  return clean;
}

std::string Redactor::CleanValue(std::string_view name, std::string_view value) const {
  return NamesSecret(name) && !value.empty() ? std::string(kRemoved) : Clean(value);
}

}  // namespace metal::recorder
