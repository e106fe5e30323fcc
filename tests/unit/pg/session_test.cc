#include "agent/pg/session.h"

#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;

TEST(SqlResultTest, ValuesAreReadByColumnName) {
  const SqlResult result = testing::MakeResult({{{"n", "42"},
                                                 {"lsn", "1/A0"},
                                                 {"t", "1800000000.5"},
                                                 {"yes", "t"},
                                                 {"null", std::nullopt},
                                                 {"word", "12x"}}});
  EXPECT_EQ(result.Int(0, "n"), 42);
  EXPECT_EQ(result.LsnAt(0, "lsn").value, 0x1000000A0u);
  EXPECT_EQ(result.Time(0, "t"), absl::FromUnixMillis(1800000000500));
  EXPECT_TRUE(result.Bool(0, "yes"));
  EXPECT_EQ(result.Int(0, "null"), std::nullopt);
  EXPECT_EQ(result.Text(0, "null"), "");
  EXPECT_EQ(result.Time(0, "null"), absl::InfinitePast());
  EXPECT_EQ(result.Int(0, "word"), std::nullopt);
  EXPECT_EQ(result.Get(0, "absent"), std::nullopt);
  EXPECT_EQ(result.Get(1, "n"), std::nullopt);
}

TEST(SqlStateTest, EveryClassHasItsCode) {
  using absl::StatusCode;
  const std::pair<const char*, StatusCode> rows[] = {
      {"57P03", StatusCode::kUnavailable},       {"08006", StatusCode::kUnavailable},
      {"57014", StatusCode::kCancelled},         {"42501", StatusCode::kPermissionDenied},
      {"42601", StatusCode::kInvalidArgument},   {"22012", StatusCode::kInvalidArgument},
      {"53100", StatusCode::kResourceExhausted}, {"58030", StatusCode::kDataLoss},
      {"XX001", StatusCode::kDataLoss},          {"55000", StatusCode::kFailedPrecondition},
      {"XX000", StatusCode::kInternal},          {"", StatusCode::kInternal}};
  for (const auto& [sqlstate, code] : rows) EXPECT_EQ(SqlStateCode(sqlstate), code) << sqlstate;
}

TEST(ConnectLibpqTest, WithoutAServerItIsUnavailable) {
  testing::TempDir dir;
  ConnectOptions options;
  options.socket_dir = dir.path();
  EXPECT_THAT(ConnectLibpq(options), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace metal::pg
