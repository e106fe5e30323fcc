#include "agent/gate/door.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/harness/simulated_clock.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/gate/fake_pgbouncer.h"

namespace metal::gate {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class DoorTest : public ::testing::Test {
 protected:
  DoorTest() {
    settings_.directory = directory_.path();
    settings_.listen_host = "127.0.0.1";
    settings_.listen_port = 6432;
    settings_.auth_file = directory_.File("userlist.txt");
    pgbouncer_ = std::make_unique<FakePgbouncer>(settings_.ini_path(), clock_);
    Restart();
  }
  // A new agent; PgBouncer goes on.
  void Restart() {
    DoorNews news;
    news.restarted = [this](const std::string&) { ++restarted_; };
    news.lost = [this](const std::string& why) { lost_.push_back(why); };
    news.recovered = [this] { ++recovered_; };
    door_ = std::make_unique<Door>(settings_, *pgbouncer_, pgbouncer_->Consoles(), clock_, news);
    pgbouncer_->commands.clear();
    pgbouncer_->AgentDies();
  }
  const DoorView& Step(const DoorWish& wish, bool interrupted = false) {
    door_->Step(wish, [interrupted] { return interrupted; });
    return door_->view();
  }
  static DoorWish Open(const std::string& host = "db-1") {
    DoorWish wish;
    wish.target = {host, 5432};
    return wish;
  }
  static DoorWish Held(const std::string& host = "db-1") {
    DoorWish wish = Open(host);
    wish.open = false;
    return wish;
  }
  std::string Nowhere() const { return "host='" + directory_.path() + "/nowhere' port=1"; }
  static constexpr const char* kFirst = "host='db-1' port=5432";
  static constexpr const char* kSecond = "host='db-2' port=5432";

  testing::TempDir directory_;
  testing::SimulatedClock clock_;
  DoorSettings settings_;
  std::unique_ptr<FakePgbouncer> pgbouncer_;
  std::unique_ptr<Door> door_;
  int restarted_ = 0, recovered_ = 0;
  std::vector<std::string> lost_;
};

TEST_F(DoorTest, AnOpenDoorIsLaunchedLeadingToItsTarget) {
  const DoorView& view = Step(Open());
  EXPECT_TRUE(view.settled && view.answers && view.running && !view.held);
  EXPECT_TRUE(pgbouncer_->LeadsTo(kFirst));
  EXPECT_TRUE(pgbouncer_->LetsThrough());
  EXPECT_EQ(view.clients, 5);
  EXPECT_EQ(restarted_, 0) << "the first launch is no restart";
}

TEST_F(DoorTest, ASettledDoorIsToldNothing) {
  Step(Open());
  pgbouncer_->commands.clear();
  Step(Open());
  EXPECT_THAT(pgbouncer_->commands, IsEmpty());
  Step(Held());
  pgbouncer_->commands.clear();
  Step(Held());
  EXPECT_THAT(pgbouncer_->commands, IsEmpty());
}

TEST_F(DoorTest, AHoldIsDrainedWhenPauseAnswers) {
  Step(Open());
  const DoorView& view = Step(Held());
  EXPECT_TRUE(view.settled && view.held && view.drained);
  EXPECT_FALSE(pgbouncer_->LetsThrough());
  EXPECT_EQ(view.waiting, 3);
}

TEST_F(DoorTest, ReleaseLeadsElsewhereBeforeItResumes) {
  Step(Open());
  Step(Held());
  pgbouncer_->commands.clear();
  EXPECT_TRUE(Step(Open("db-2")).settled);
  EXPECT_TRUE(pgbouncer_->LeadsTo(kSecond));
  EXPECT_THAT(pgbouncer_->commands, ElementsAre("RELOAD", "RESUME"));
}

TEST_F(DoorTest, TransactionsThatGoOnAreCountedUntilTheyEnd) {
  Step(Open());
  pgbouncer_->transactions = 2;
  const DoorView* view = &Step(Held());
  EXPECT_TRUE(view->settled && view->held && !view->drained);
  EXPECT_EQ(view->transactions, 2);
  pgbouncer_->transactions = 0;
  view = &Step(Held());
  EXPECT_TRUE(view->drained);
}

TEST_F(DoorTest, WhatStillRunsAtTheFormerServerIsClosedAfterARelease) {
  Step(Open());
  pgbouncer_->transactions = 1;
  Step(Held());
  pgbouncer_->commands.clear();
  Step(Open("db-2"));
  EXPECT_THAT(pgbouncer_->commands, ElementsAre("RELOAD", "RECONNECT", "RESUME"));
  EXPECT_TRUE(pgbouncer_->LetsThrough());
}

TEST_F(DoorTest, AnOpenDoorThatIsLedElsewhereIsPausedMeanwhile) {
  Step(Open());
  pgbouncer_->commands.clear();
  Step(Open("db-2"));
  EXPECT_THAT(pgbouncer_->commands, ElementsAre("PAUSE", "RELOAD", "RESUME"));
  EXPECT_TRUE(pgbouncer_->LeadsTo(kSecond));
}

TEST_F(DoorTest, AnotherOrderEndsTheWaitForTransactions) {
  Step(Open());
  pgbouncer_->transactions = 1;
  const absl::Time before = clock_.Now();
  EXPECT_TRUE(Step(Held(), /*interrupted=*/true).held);
  EXPECT_LT(clock_.Now() - before, absl::Milliseconds(100));
  EXPECT_TRUE(Step(Open()).settled);
  EXPECT_TRUE(pgbouncer_->LetsThrough());
}

TEST_F(DoorTest, AKilledPgbouncerLeadsAgainToWhereItLed) {
  Step(Open("db-2"));
  clock_.Advance(absl::Minutes(1));
  pgbouncer_->Die();
  const DoorView& view = Step(Open("db-2"));
  EXPECT_TRUE(view.settled);
  EXPECT_EQ(view.restarts, 1);
  EXPECT_EQ(restarted_, 1);
  EXPECT_TRUE(pgbouncer_->LeadsTo(kSecond));
}

TEST_F(DoorTest, AKilledPgbouncerOfAHeldDoorComesBackLeadingNowhereAndPaused) {
  Step(Open());
  Step(Held());
  clock_.Advance(absl::Minutes(1));
  pgbouncer_->Die();
  const DoorView& view = Step(Held());
  EXPECT_TRUE(view.settled && view.held && view.drained);
  EXPECT_THAT(pgbouncer_->launched_with, HasSubstr("* = " + Nowhere()));
  EXPECT_FALSE(pgbouncer_->LetsThrough());
  EXPECT_TRUE(pgbouncer_->LeadsTo(Nowhere())) << "it is given a server when it is released";
  Step(Open());
  EXPECT_TRUE(pgbouncer_->LeadsTo(kFirst));
  EXPECT_TRUE(pgbouncer_->LetsThrough());
}

TEST_F(DoorTest, OneThatDoesNotStayUpIsTriedLessAndLessOften) {
  Step(Open());
  pgbouncer_->can_launch = false;
  pgbouncer_->Die();
  const absl::Time end = clock_.Now() + absl::Minutes(2);
  while (clock_.Now() < end) {
    EXPECT_FALSE(Step(Open()).settled);
    clock_.Advance(absl::Milliseconds(50));
  }
  EXPECT_GT(pgbouncer_->launches, 10) << "it is never given up";
  EXPECT_LT(pgbouncer_->launches, 25) << "but is tried every 10 s at last";
  EXPECT_EQ(lost_.size(), 1u) << "told once";
  EXPECT_THAT(door_->view().problem, HasSubstr("cannot listen"));
  pgbouncer_->can_launch = true;
  clock_.Advance(absl::Seconds(11));
  EXPECT_TRUE(Step(Open()).settled);
  EXPECT_EQ(recovered_, 1);
}

TEST_F(DoorTest, AFrozenPgbouncerIsReportedAndNotReplaced) {
  Step(Open());
  pgbouncer_->frozen = true;
  const absl::Time before = clock_.Now();
  const DoorView* view = &Step(Held());
  EXPECT_FALSE(view->settled || view->answers);
  EXPECT_TRUE(view->running);
  EXPECT_LT(clock_.Now() - before, absl::Seconds(5));
  EXPECT_THAT(view->problem, HasSubstr("process"));
  EXPECT_THAT(lost_, Contains(HasSubstr("HINT")));
  EXPECT_EQ(pgbouncer_->stops, 0);
  pgbouncer_->frozen = false;
  view = &Step(Held());
  EXPECT_TRUE(view->settled && view->drained);
  EXPECT_EQ(recovered_, 1);
  EXPECT_EQ(pgbouncer_->launches, 1);
}

TEST_F(DoorTest, AnAdoptedOneIsToldEverythingAgain) {
  Step(Open());
  Step(Held());
  Restart();  // the agent died while the door was held, and was then released by another
  const DoorView& view = Step(Open("db-2"));
  EXPECT_TRUE(view.settled);
  EXPECT_EQ(pgbouncer_->launches, 1) << "the running one is adopted";
  EXPECT_EQ(restarted_, 0);
  EXPECT_TRUE(pgbouncer_->LeadsTo(kSecond));
  EXPECT_TRUE(pgbouncer_->LetsThrough());
}

TEST_F(DoorTest, TheHoldOfAnAgentThatDiedBeforeItPausedIsCarriedOut) {
  Step(Open());
  Restart();
  EXPECT_TRUE(Step(Held()).drained);
  EXPECT_FALSE(pgbouncer_->LetsThrough());
  Restart();
  EXPECT_TRUE(Step(Held()).drained) << "also when it was paused already";
}

TEST_F(DoorTest, OneThatListensElsewhereIsReplaced) {
  Step(Open());
  settings_.listen_port = 7000;
  Restart();
  EXPECT_TRUE(Step(Open()).settled);
  EXPECT_EQ(pgbouncer_->stops, 1);
  EXPECT_EQ(pgbouncer_->launches, 2);
  EXPECT_THAT(pgbouncer_->in_force, HasSubstr("listen_port = 7000"));
  settings_.default_pool_size = 7;
  Restart();
  EXPECT_TRUE(Step(Open()).settled);
  EXPECT_EQ(pgbouncer_->launches, 2) << "what can be reloaded needs no other process";
  EXPECT_THAT(pgbouncer_->in_force, HasSubstr("default_pool_size = 7"));
}

TEST_F(DoorTest, AnotherListOfUsersIsReloaded) {
  Step(Open());
  pgbouncer_->commands.clear();
  DoorWish wish = Open();
  wish.users_revision = 2;
  Step(wish);
  EXPECT_THAT(pgbouncer_->commands, ElementsAre("RELOAD"));
}

TEST_F(DoorTest, AClosedDoorRefusesSoonAndAHeldOneDoesNot) {
  Step(Open());
  Step(Held());
  EXPECT_THAT(pgbouncer_->in_force, Not(HasSubstr("query_wait_timeout = 0.2")));
  DoorWish closed = Held();
  closed.patience = Patience::kRefuse;
  Step(closed);
  EXPECT_THAT(pgbouncer_->in_force, HasSubstr("query_wait_timeout = 0.2"));
}

}  // namespace
}  // namespace metal::gate
