#include "agent/recorder/redact.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::recorder {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Case {
  std::string text;
  std::string kept = "";  // must still be there
};

// Each holds the secret h4nter2-s3cret, written in another way.
const std::vector<Case>& Planted() {
  static const std::vector<Case> cases = {
      {"password=h4nter2-s3cret host=db-1", "host=db-1"},
      {"primary_conninfo = 'host=db-1 password=h4nter2-s3cret user=metal'", "user=metal"},
      {"primary_conninfo = 'host=db-1 password=''h4nter2-s3cret'' user=metal'", "user=metal"},
      {R"(primary_conninfo = 'host=db-1 password=\'h4nter2-s3cret\' user=metal')", "user=metal"},
      {R"("primary_conninfo": "host=db-1 password=\"h4nter2-s3cret\" user=metal")", "user=metal"},
      {"PASSWORD = \"h4nter2-s3cret\"\nport = 5432", "port = 5432"},
      {R"({"password":"h4nter2-s3cret","port":5432})", "5432"},
      {R"({"s3_secret_access_key" : "h4nter2-s3cret", "port":5432})", "5432"},
      {"CREATE ROLE app LOGIN PASSWORD 'h4nter2-s3cret' CONNECTION LIMIT 3", "CONNECTION LIMIT 3"},
      {"ALTER ROLE app ENCRYPTED PASSWORD 'it''s h4nter2-s3cret'; SELECT 1", "SELECT 1"},
      {"sslpassword: h4nter2-s3cret", "sslpassword"},
      {"postgres://metal:h4nter2-s3cret@db-1:5432/postgres", "@db-1:5432/postgres"},
      {"https://key:h4nter2-s3cret@s3.example/bucket", "@s3.example/bucket"},
      {"Authorization: Bearer h4nter2-s3cret", "Authorization"},
      {"curl -H 'X: Bearer h4nter2-s3cret' x", "curl"},
      {"AWS_SECRET_ACCESS_KEY=h4nter2-s3cret archive %p", "archive %p"},
      {"archive --repo-token h4nter2-s3cret --token=h4nter2-s3cret -v", " -v"},
      {"ssl_passphrase_command = 'echo h4nter2-s3cret'", "ssl_passphrase_command"},
      {"api-key: h4nter2-s3cret", "api-key"},
      {"-----BEGIN PRIVATE KEY-----\nh4nter2-s3cret\nabc\n-----END PRIVATE KEY-----\nafter",
       "after"},
      {R"("p":"-----BEGIN PRIVATE KEY-----\nh4nter2-s3cret\n-----END PRIVATE KEY-----","a":1)",
       R"("a":1)"},
      {"x SCRAM-SHA-256$4096:h4nter2-s3cret== y", " y"},
      {"the words h4nter2-s3cret alone", "the words"},
  };
  return cases;
}

TEST(RedactTest, NoSecretIsLeftAndTheRestIs) {
  const Redactor redactor(std::vector<std::string>{"h4nter2-s3cret"});
  for (const Case& each : Planted()) {
    EXPECT_THAT(redactor.Clean(each.text), Not(HasSubstr("h4nter2-s3cret"))) << each.text;
    EXPECT_THAT(redactor.Clean(each.text), HasSubstr(each.kept)) << each.text;
  }
}

TEST(RedactTest, WhatIsNotKnownIsFoundByItsName) {
  const Redactor redactor;
  for (const Case& each : Planted()) {
    if (each.text.starts_with("the words")) continue;
    EXPECT_THAT(redactor.Clean(each.text), Not(HasSubstr("h4nter2-s3cret"))) << each.text;
    EXPECT_THAT(redactor.Clean(each.text), HasSubstr(each.kept)) << each.text;
  }
}

TEST(RedactTest, HashesOfPasswordsAreSecrets) {
  const Redactor redactor;
  EXPECT_EQ(redactor.Clean("md50123456789abcdef0123456789abcdef x"), "md5<removed> x");
  EXPECT_EQ(redactor.Clean("md5sum 0123"), "md5sum 0123");
}

TEST(RedactTest, WhatIsNoSecretStays) {
  const Redactor redactor;
  for (const char* text :
       {"password_file = \"/etc/metal/password\"", "password_encryption = scram-sha-256",
        "FATAL:  password authentication failed for user \"app\"",
        "host all all samenet scram-sha-256",
        "event=operation.started subject=\"operations/1\" CreateBackup started",
        "http://db-1:9187/metrics", "wal_level = replica",
        "nvme nvme0: I/O 12 QID 3 timeout, aborting", "tokens_per_second: 5",
        "syntax error at or near \"password\" at character 12", "public key: abc", ""}) {
    EXPECT_EQ(redactor.Clean(text), text);
  }
}

TEST(RedactTest, ANameOfASecretTakesItsWholeValue) {
  const Redactor redactor;
  EXPECT_EQ(redactor.CleanValue("repository_token", "abc def"), "<removed>");
  EXPECT_EQ(redactor.CleanValue("repository_token", ""), "");
  EXPECT_EQ(redactor.CleanValue("lsn", "0/3000060"), "0/3000060");
}

TEST(RedactTest, AnyBytesAreTaken) {
  const Redactor redactor;
  for (const char* text : {"password", "password=", "password='", "password=\\", "://", "a://b:@",
                           "-----BEGIN PRIVATE KEY-----", "bearer ", "password=''", "--", "\\\"",
                           "token:", "SCRAM-SHA-256$", "password=\\\"", "'"}) {
    redactor.Clean(text);
  }
}

}  // namespace
}  // namespace metal::recorder
