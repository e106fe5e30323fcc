#include "agent/node/fence/client_cut.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/base/file.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/node/fake_privileges.h"

namespace metal::node {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ClientCutTest : public ::testing::Test {
 protected:
  std::string Mark() { return directory_.File("agent.sock.cut"); }
  ClientCut Make() { return ClientCut(&helper_, 5432, Mark(), clock_); }

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  FakePrivileges helper_;
};

TEST_F(ClientCutTest, ANodeWithoutAFenceNeverAsks) {
  ClientCut cut = Make();
  cut.Keep(FenceCause::kNone);
  cut.Keep(FenceCause::kNone);
  EXPECT_THAT(helper_.asked, IsEmpty());
}

TEST_F(ClientCutTest, WhatCouldNotBeDestroyedIsSaid) {
  helper_.left = "no buffer";
  EXPECT_EQ(Make().Cut({}),
            "refuses new connections to port 5432; destroyed 3 connections, not all: no buffer");
}

TEST_F(ClientCutTest, ACutIsMadeKeptAndTakenBackOnce) {
  ClientCut cut = Make();
  EXPECT_EQ(cut.Cut({7, 8}), "refuses new connections to port 5432; destroyed 3 connections");
  cut.Keep(FenceCause::kDisk);
  EXPECT_THAT(helper_.asked, ElementsAre("refuse 5432", "destroy 5432 but 2"));
  EXPECT_EQ(cut.DestroyRest(), "destroyed 3 connections that were left");
  helper_.asked.clear();
  cut.Keep(FenceCause::kNone);
  cut.Keep(FenceCause::kNone);
  EXPECT_THAT(helper_.asked, ElementsAre("allow 5432"));
  EXPECT_FALSE(base::PathExists(Mark()));
}

TEST_F(ClientCutTest, AnAgentThatStartsAnewGoesOnWhereTheFenceIs) {
  (void)Make().Cut({});
  helper_.asked.clear();
  Make().Keep(FenceCause::kDisk);
  EXPECT_THAT(helper_.asked, ElementsAre("refuse 5432"));
  helper_.asked.clear();
  Make().Keep(FenceCause::kNone);  // unfenced while it was away
  EXPECT_THAT(helper_.asked, ElementsAre("allow 5432"));
}

TEST_F(ClientCutTest, TheFenceOfAFailoverKeepsTheCutAndMakesNone) {
  ClientCut other = Make();
  other.Keep(FenceCause::kOther);
  EXPECT_THAT(helper_.asked, IsEmpty());
  ClientCut cut = Make();
  (void)cut.Cut({});
  helper_.asked.clear();
  cut.Keep(FenceCause::kOther);
  EXPECT_THAT(helper_.asked, IsEmpty());
  Make().Keep(FenceCause::kOther);  // an agent that starts anew
  EXPECT_THAT(helper_.asked, ElementsAre("refuse 5432"));
}

TEST_F(ClientCutTest, WhatIsNotPossibleIsSaidAndNotTriedAgain) {
  helper_.answer = absl::UnimplementedError("unsupported: nft is not installed");
  ClientCut cut = Make();
  EXPECT_THAT(cut.Cut({}), HasSubstr("does not refuse new connections to port 5432: unsupported: "
                                     "nft is not installed; did not destroy connections: "));
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(absl::Seconds(20));
    cut.Keep(FenceCause::kDisk);
  }
  EXPECT_THAT(helper_.asked, ElementsAre("refuse 5432", "destroy 5432 but 0", "refuse 5432"));
}

TEST_F(ClientCutTest, WhatFailedIsTriedAgainAfterAWhile) {
  helper_.answer = absl::UnavailableError("busy");
  ClientCut cut = Make();
  (void)cut.Cut({});
  helper_.asked.clear();
  cut.Keep(FenceCause::kDisk);
  EXPECT_THAT(helper_.asked, IsEmpty());
  clock_.Advance(absl::Seconds(11));
  helper_.answer = absl::OkStatus();
  cut.Keep(FenceCause::kDisk);
  cut.Keep(FenceCause::kDisk);
  EXPECT_THAT(helper_.asked, ElementsAre("refuse 5432"));
}

}  // namespace
}  // namespace metal::node
