// Matchers for absl::Status and absl::StatusOr:
//   EXPECT_THAT(Do(), IsOk());   EXPECT_THAT(Get(), IsOkAndHolds(Eq(3)));
//   EXPECT_THAT(Do(), StatusIs(absl::StatusCode::kNotFound));
//   EXPECT_THAT(Do(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("block 7")));
//   ASSERT_OK(Do());   ASSERT_OK_AND_ASSIGN(auto value, Get());
#pragma once

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/status.h"
#include "gmock/gmock.h"

namespace metal::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status) {
  return status.status();
}

// The reason that an error carries; empty when it has none.
inline std::string ReasonOf(const absl::Status& status) {
  const auto reason = base::GetReason(status);
  return reason ? reason->reason : "";
}

class StatusIsMatcher {
 public:
  StatusIsMatcher(absl::StatusCode code, ::testing::Matcher<const std::string&> message)
      : code_(code), message_(std::move(message)) {}

  template <typename T>
  bool MatchAndExplain(const T& value, ::testing::MatchResultListener* listener) const {
    const absl::Status& status = StatusOf(value);
    *listener << "which is " << status.ToString();
    return status.code() == code_ && message_.Matches(std::string(status.message()));
  }
  void DescribeTo(std::ostream* os) const { Describe(os, "is "); }
  void DescribeNegationTo(std::ostream* os) const { Describe(os, "is not "); }

 private:
  void Describe(std::ostream* os, const char* verb) const {
    *os << verb << absl::StatusCodeToString(code_) << " with a message that ";
    message_.DescribeTo(os);
  }
  absl::StatusCode code_;
  ::testing::Matcher<const std::string&> message_;
};

inline ::testing::PolymorphicMatcher<StatusIsMatcher> StatusIs(
    absl::StatusCode code, ::testing::Matcher<const std::string&> message = ::testing::_) {
  return ::testing::MakePolymorphicMatcher(StatusIsMatcher(code, std::move(message)));
}

MATCHER(IsOk, negation ? "is not OK" : "is OK") {
  *result_listener << "which is " << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

MATCHER_P(IsOkAndHolds, inner, "") {
  if (!arg.ok()) {
    *result_listener << "which is " << arg.status().ToString();
    return false;
  }
  return ::testing::ExplainMatchResult(inner, *arg, result_listener);
}

}  // namespace metal::testing

#define EXPECT_OK(expression) EXPECT_THAT(expression, ::metal::testing::IsOk())
#define ASSERT_OK(expression) ASSERT_THAT(expression, ::metal::testing::IsOk())

#define METAL_TEST_CONCAT_INNER(a, b) a##b
#define METAL_TEST_CONCAT(a, b) METAL_TEST_CONCAT_INNER(a, b)
#define ASSERT_OK_AND_ASSIGN(lhs, expression) \
  ASSERT_OK_AND_ASSIGN_IMPL(METAL_TEST_CONCAT(status_or_, __LINE__), lhs, expression)
#define ASSERT_OK_AND_ASSIGN_IMPL(tmp, lhs, expression) \
  auto tmp = (expression);                              \
  ASSERT_TRUE(tmp.ok()) << tmp.status().ToString();     \
  lhs = *std::move(tmp)
