// Procedures on a shard in memory (fake_shard.h), and the states that several of their tests begin
// with.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/shard/fake_shard.h"
#include "tools/metalctl/shard/findings.h"
#include "tools/metalctl/shard/procedure.h"

namespace metal::shard {

class QuietLog : public StepLog {
 public:
  void Begin(std::string_view, std::string_view) override {}
  void End(const StepRecord& step) override {
    text += step.name + " " + step.nodes + ": " + (step.error.empty() ? step.result : step.error) +
            "\n";
  }
  void Note(std::string_view note) override { text += std::string(note) + "\n"; }
  std::string text;
};

enum class Command { kReparent, kFailover, kRecover, kInit, kReplace };

class ProcedureTest : public ::testing::Test {
 protected:
  ProcedureTest() : shard_(std::make_unique<FakeShard>(ThreeNodes())) {}

  absl::Status Run(Command command, const ChangeOptions& options = {}) {
    static int runs = 0;
    Procedure procedure(shard_->config(), *shard_, log_, fmt::format("run{}", ++runs));
    switch (command) {
      case Command::kReparent:
        return procedure.Reparent(options);
      case Command::kFailover:
        return procedure.Failover(options);
      case Command::kRecover:
        return procedure.Recover();
      case Command::kInit:
        return procedure.Init({});
      case Command::kReplace:
        return procedure.Replace(options.to.value_or(0), false);
    }
    return absl::OkStatus();
  }
  FakeNode& node(size_t i) { return shard_->at(i); }
  std::optional<size_t> Primary() { return FindPrimary(shard_->Views()); }
  // Everything that was ever acknowledged is on the one primary, and nothing is wrong.
  void ExpectHealthy(const std::string& where) {
    const auto primary = Primary();
    ASSERT_TRUE(primary.has_value()) << where << "\n" << log_.text;
    EXPECT_EQ(shard_->Lost(*primary), 0) << where << "\n" << log_.text;
    EXPECT_FALSE(shard_->two_primaries()) << where << "\n" << log_.text;
    EXPECT_THAT(shard_->Findings(), ::testing::IsEmpty()) << where << "\n" << log_.text;
    EXPECT_GT(shard_->acknowledged(), 0u);
  }

  std::unique_ptr<FakeShard> shard_;
  QuietLog log_;
};

// A shard that is yet to be made.
inline void Empty(FakeShard& shard) {
  shard.ForgetAcknowledged();
  for (size_t i = 0; i < shard.size(); ++i) {
    FakeNode& node = shard.at(i);
    node.empty = true;
    node.server_up = node.read_write = false;
    node.stored = {};
    node.wanted = NodeRole::kStandby;
    node.slots.clear();
    node.synchronous = "";
    node.source.reset();
  }
}

// a failed, and comes back after another node was promoted, with WAL of its own.
inline void LetAReturnDiverged(FakeShard& shard) {
  QuietLog log;
  shard.at(0).reachable = shard.at(0).server_up = false;
  Procedure procedure(shard.config(), shard, log, "failover");
  ASSERT_THAT(procedure.Failover({}), testing::IsOk()) << log.text;
  shard.Revive();
  shard.at(0).reachable = shard.at(0).server_up = true;
  shard.Tick();
}

}  // namespace metal::shard
