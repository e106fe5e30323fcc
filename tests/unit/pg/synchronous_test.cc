#include "agent/pg/synchronous.h"

#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using ::metal::testing::StatusIs;

SynchronousPolicy Any(int count, std::vector<std::string> names) {
  return {true, count, std::move(names)};
}

TEST(SynchronousTest, WhatIsRenderedIsReadBack) {
  for (const SynchronousPolicy& policy :
       {SynchronousPolicy(), Any(1, {"node-b", "node-c"}), Any(2, {"a b", "say \"x\"", "z"}),
        SynchronousPolicy{false, 1, {"a"}}}) {
    ASSERT_OK_AND_ASSIGN(const SynchronousPolicy read, ParsePolicy(RenderPolicy(policy)));
    EXPECT_EQ(read, policy) << RenderPolicy(policy);
  }
  EXPECT_EQ(RenderPolicy(Any(1, {"b", "c"})), R"(ANY 1 ("b", "c"))");
}

TEST(SynchronousTest, EveryFormOfTheServerIsRead) {
  EXPECT_EQ(*ParsePolicy(" a , B "), (SynchronousPolicy{false, 1, {"a", "b"}}));
  EXPECT_EQ(*ParsePolicy("2 (a,\"B\")"), (SynchronousPolicy{false, 2, {"a", "B"}}));
  EXPECT_EQ(*ParsePolicy("first 1 (a)"), (SynchronousPolicy{false, 1, {"a"}}));
  EXPECT_EQ(*ParsePolicy("any 1 (*)"), Any(1, {"*"}));
  for (const char* bad : {"ANY (a)", "ANY 1 a", "ANY 1 (a", "ANY 1 (a) b", "a,", "\"a", "2 ()"}) {
    EXPECT_THAT(ParsePolicy(bad), StatusIs(absl::StatusCode::kInvalidArgument)) << bad;
  }
}

TEST(SynchronousTest, APolicyThatCannotHoldIsRefused) {
  for (const SynchronousPolicy& bad :
       {Any(2, {"a"}), Any(1, {"a", "a"}), Any(1, {""}), Any(1, {"*"}), Any(-1, {"a"})}) {
    EXPECT_THAT(CheckPolicy(bad), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_OK(CheckPolicy(Any(1, {"a", "b"})));
  EXPECT_OK(CheckPolicy({}));
}

TEST(SynchronousTest, AStrongerPolicyImpliesAWeaker) {
  EXPECT_TRUE(Implies(Any(2, {"a", "b"}), Any(1, {"a", "b"})));
  EXPECT_TRUE(Implies(Any(1, {"a"}), Any(1, {"a", "b"})));
  EXPECT_FALSE(Implies(Any(1, {"a", "b"}), Any(1, {"a"})));
  EXPECT_TRUE(Implies(Any(2, {"a", "b", "c"}), Any(1, {"a", "b"})));
  EXPECT_FALSE(Implies({}, Any(1, {"a"})));
  EXPECT_TRUE(Implies(Any(1, {"a"}), {}));
}

TEST(SynchronousTest, AChangeGoesThroughAPolicyThatHoldsBoth) {
  const auto both = Between(Any(1, {"a", "b"}), Any(1, {"b", "c"}));
  ASSERT_TRUE(both.has_value());
  EXPECT_EQ(*both, Any(2, {"a", "b", "c"}));
  // {b} alone would hold both, but a count over the union is all that the server can be told.
  EXPECT_EQ(Between(Any(1, {"a"}), Any(1, {"b"}))->count, 2);
  EXPECT_FALSE(Between(Any(1, {"a", "b"}), Any(2, {"a", "b"})).has_value());
  EXPECT_FALSE(Between(Any(2, {"a", "b"}), Any(1, {"a", "b"})).has_value());
  EXPECT_FALSE(Between({}, Any(1, {"a"})).has_value());
}

TEST(SynchronousTest, EveryPairOfSmallPoliciesIsBridged) {
  const std::vector<std::string> all = {"a", "b", "c", "d"};
  std::vector<SynchronousPolicy> policies;
  for (uint32_t mask = 1; mask < 16; ++mask) {
    std::vector<std::string> names;
    for (size_t i = 0; i < all.size(); ++i) {
      if ((mask >> i & 1) != 0) names.push_back(all[i]);
    }
    for (int count = 1; count <= static_cast<int>(names.size()); ++count) {
      policies.push_back(Any(count, names));
    }
  }
  for (const auto& before : policies) {
    for (const auto& after : policies) {
      const auto both = Between(before, after);
      if (!both) {
        EXPECT_TRUE(Implies(before, after) || Implies(after, before));
        continue;
      }
      EXPECT_OK(CheckPolicy(*both));
      EXPECT_TRUE(Implies(*both, before) && Implies(*both, after))
          << RenderPolicy(before) << " -> " << RenderPolicy(after);
    }
  }
}

}  // namespace
}  // namespace metal::pg
