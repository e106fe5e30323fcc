#include "agent/pg/scram.h"

#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

// What PostgreSQL 15 stored for CREATE ROLE … PASSWORD with the same salt: RFC 7677's example has
// user "user", password "pencil", salt W22ZaJ0SNY7soEsUEjb6gQ== and 4096 iterations.
TEST(ScramTest, TheVerifierOfTheRfcsExample) {
  const unsigned char salt[] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
                                0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};
  ASSERT_OK_AND_ASSIGN(
      const std::string verifier,
      ScramVerifier("pencil", std::string_view(reinterpret_cast<const char*>(salt), 16), 4096));
  EXPECT_EQ(verifier,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
            "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
}

TEST(ScramTest, SaltsDiffer) { EXPECT_NE(*ScramVerifier("x"), *ScramVerifier("x")); }

TEST(ScramTest, WhatWouldNeedSaslprepIsRefused) {
  for (const char* bad : {"", "p\xc3\xa4ss", "a\tb"}) {
    EXPECT_THAT(ScramVerifier(bad), metal::testing::StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

}  // namespace
}  // namespace metal::pg
