// Redactor: removes secrets from text before it leaves the host: values of names that end in a word
// such as "password" or "token" (name=value, name: value, "name":"value", SQL's PASSWORD 'value',
// connection strings), passwords in URLs, private keys, password hashes, bearer tokens, and secrets
// that the agent knows. What is removed becomes kRemoved. Rather too much than too little.
// Threading: immutable; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace metal::recorder {

inline constexpr std::string_view kRemoved = "<removed>";

class Redactor {
 public:
  Redactor() = default;
  // `known`: secrets by their text; those below 4 bytes are left out, they would take half of any
  // text with them.
  explicit Redactor(const std::vector<std::string>& known);

  std::string Clean(std::string_view text) const;
  // Cleaned as the value of a thing of this name: nothing is left of it when the name is a
  // secret's.
  std::string CleanValue(std::string_view name, std::string_view value) const;

 private:
  std::vector<std::string> known_;  // longest first
};

// "password", "sslpassword", "S3_SECRET_KEY"; not "password_file", "tokens_per_second".
bool NamesSecret(std::string_view name);

}  // namespace metal::recorder
