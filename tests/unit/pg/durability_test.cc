#include "agent/pg/durability.h"

#include "agent/pg/durability_record.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"

namespace metal::pg {
namespace {

using metal::testing::IsOk;
using metal::testing::MakeResult;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

SynchronousPolicy Any(int count, std::vector<std::string> names) {
  return {.any = true, .count = count, .names = std::move(names)};
}

DurabilityRule Rule(int copies, unsigned members) {
  DurabilityRule rule{copies, {}};
  for (size_t i = 0; i < 4; ++i) {
    if ((members >> i & 1) != 0) rule.members.push_back(std::string(1, static_cast<char>('a' + i)));
  }
  return rule;
}

TEST(DurabilityTest, APolicyIsItsNamesAndThePrimary) {
  EXPECT_EQ(RuleOf("b", Any(1, {"c", "a"})), (DurabilityRule{2, {"a", "b", "c"}}));
  EXPECT_EQ(RuleOf("c", Any(1, {"a", "b"})), RuleOf("b", Any(1, {"c", "a"}))) << "whoever leads";
  EXPECT_EQ(RuleOf("b", {}), (DurabilityRule{1, {"b"}}));
  EXPECT_EQ(RuleOf("b", Any(1, {"*"})), (DurabilityRule{1, {"b"}})) << "anybody is nobody";
}

TEST(DurabilityTest, ARuleCoversWhatEverySetOfItSatisfies) {
  for (unsigned first = 1; first < 16; ++first) {
    for (unsigned second = 1; second < 16; ++second) {
      for (int q = 1; q <= __builtin_popcount(first); ++q) {
        for (int p = 1; p <= __builtin_popcount(second); ++p) {
          bool covers = true;
          for (unsigned set = 0; set < 16; ++set) {
            const bool strong = __builtin_popcount(set & first) >= q;
            if (strong && __builtin_popcount(set & second) < p) covers = false;
          }
          ASSERT_EQ(Covers(Rule(q, first), Rule(p, second)), covers || p == 1)
              << q << " of " << first << ", " << p << " of " << second;
        }
      }
    }
  }
}

TEST(DurabilityTest, TheCoveringPolicyCoversAllAndIsThePolicyWhereThatDoes) {
  for (unsigned members = 1; members < 16; ++members) {
    for (int copies = 1; copies <= __builtin_popcount(members); ++copies) {
      const DurabilityRecord record = {Rule(copies, members), Rule(2, 0b0011)};
      for (const SynchronousPolicy& policy :
           {SynchronousPolicy(), Any(1, {"b", "c"}), Any(2, {"b", "d"}), Any(1, {"*"})}) {
        const SynchronousPolicy covering = CoveringPolicy("a", policy, record);
        ASSERT_TRUE(Covers(RuleOf("a", covering), record)) << EncodeDurability(record);
        ASSERT_THAT(CheckPolicy(covering), IsOk());
        if (Covers(RuleOf("a", policy), record)) {
          ASSERT_EQ(covering, policy);
        }
      }
    }
  }
  EXPECT_EQ(CoveringPolicy("b", {}, {Rule(2, 0b0111)}), Any(1, {"a", "c"}));
  EXPECT_EQ(CoveringPolicy("b", Any(1, {"a", "c", "d"}), {Rule(2, 0b0111)}),
            Any(2, {"a", "c", "d"}));
  EXPECT_EQ(CoveringPolicy("b", {}, {Rule(1, 0b0001)}), SynchronousPolicy());
}

TEST(DurabilityTest, ARecordIsReadAsItWasWritten) {
  const DurabilityRecord record = {{2, {"a, \"x\"", "b"}}, {1, {"b"}}};
  const auto read = DecodeDurability(EncodeDurability(record));
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(*read, record);
  EXPECT_EQ(DecodeDurability("")->size(), 0u);
  for (const char* bad : {"FIRST 1 (a)", "ANY 3 (a, b)", "ANY 1 (*)", "hello (", "ANY 1 (a)\n\n"}) {
    EXPECT_FALSE(DecodeDurability(bad).ok()) << bad;
  }
}

// A primary `a` whose table and setting are these.
class RecordTest : public ::testing::Test {
 protected:
  RecordTest() {
    server_.On("to_regclass", [](const auto&) {
      return MakeResult({{{"present", "t"},
                          {"mark", "metal-agent: terms and heartbeat of this cluster (1)"},
                          {"whole", "t"},
                          {"durability", "t"}}});
    });
    server_.On("current_setting('synchronous_standby_names')", [this](const auto&) {
      return MakeResult({{{"names", setting_}}});
    });
    server_.On("FROM metal.durability", [this](const auto&) {
      return rules_.empty() ? SqlResult{}
                            : MakeResult({{{"rules", rules_}, {"cluster_id", cluster_}}});
    });
    server_.On("INSERT INTO metal.durability", [this](const auto& parameters) {
      rules_ = *parameters[0];
      cluster_ = *parameters[1];
      return SqlResult{};
    });
  }
  RecordState Keep() {
    auto session = server_.factory()();
    const auto state = KeepRecord(**session, {"a", "orders", 3}, &since_, absl::Seconds(1));
    EXPECT_THAT(state, IsOk());
    return state.ok() ? *state : RecordState();
  }
  void Flushed(const std::string& name, base::Lsn lsn) {
    server_.Change([&](testing::FakeServerState& state) {
      state.followers.push_back(
          {{"application_name", name}, {"state", "streaming"}, {"flush_lsn", lsn.ToString()}});
    });
  }

  testing::SimulatedClock clock_;
  testing::FakePostgres server_{clock_};
  std::string setting_, rules_, cluster_ = "orders";
  base::Lsn since_;
};

TEST_F(RecordTest, WhatIsInForceIsRecordedFromTheFirstLook) {
  const RecordState state = Keep();
  EXPECT_TRUE(state.settled);
  EXPECT_FALSE(state.weaker);
  EXPECT_EQ(rules_, "ANY 1 (\"a\")\n");
}

TEST_F(RecordTest, ASettingThatAsksForLessIsAddedAndToldAbout) {
  rules_ = "ANY 2 (\"a\", \"b\", \"c\")\n";
  const RecordState state = Keep();
  EXPECT_TRUE(state.weaker);
  EXPECT_FALSE(state.settled) << "nobody knows it";
  EXPECT_EQ(rules_, "ANY 2 (\"a\", \"b\", \"c\")\nANY 1 (\"a\")\n");
  EXPECT_FALSE(Keep().weaker) << "told once";
  EXPECT_FALSE(Keep().settled);
}

TEST_F(RecordTest, AStrongerOneStandsAloneOnceNodesEnoughKnowIt) {
  rules_ = "ANY 1 (\"a\")\n";
  setting_ = "ANY 1 (b, c)";
  EXPECT_FALSE(Keep().settled);
  EXPECT_EQ(rules_, "ANY 1 (\"a\")\nANY 2 (\"a\", \"b\", \"c\")\n");
  Flushed("c", server_.state().lsn);
  const RecordState state = Keep();
  EXPECT_TRUE(state.settled);
  EXPECT_FALSE(state.weaker);
  EXPECT_EQ(rules_, "ANY 2 (\"a\", \"b\", \"c\")\n");
}

TEST_F(RecordTest, TheRecordOfAnotherClusterIsNone) {
  rules_ = "ANY 3 (\"x\", \"y\", \"z\")\n";
  cluster_ = "elsewhere";
  EXPECT_TRUE(Keep().settled);
  EXPECT_EQ(rules_, "ANY 1 (\"a\")\n");
  EXPECT_EQ(cluster_, "orders");
}

}  // namespace
}  // namespace metal::pg
