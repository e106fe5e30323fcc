#include "agent/observe/event_log.h"

#include <gtest/gtest.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "sqlite3.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::observe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::SimulatedClock;
using testing::StatusIs;
using testing::TempDir;

constexpr absl::Duration kLong = absl::Seconds(60);

Event Named(std::string type, Severity severity = Severity::kInfo) {
  Event event;
  event.time = absl::InfinitePast();
  event.severity = severity;
  event.type = std::move(type);
  event.subject = "postgres";
  event.message = "something happened";
  return event;
}

std::vector<std::string> Types(const std::vector<Event>& events) {
  std::vector<std::string> types;
  for (const Event& event : events) types.push_back(event.type);
  return types;
}
std::vector<uint64_t> Ids(const std::vector<Event>& events) {
  std::vector<uint64_t> ids;
  for (const Event& event : events) ids.push_back(event.id);
  return ids;
}

class EventLogTest : public ::testing::Test {
 protected:
  std::unique_ptr<EventLog> Open(size_t keep = 100000) {
    auto log = OpenEventLog(path_, clock_, keep);
    EXPECT_OK(log.status());
    return log.ok() ? *std::move(log) : nullptr;
  }
  // Runs SQL on the file through a connection of the test's own.
  void Sql(const std::string& sql) {
    sqlite3* connection = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &connection), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(connection, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK)
        << sqlite3_errmsg(connection);
    sqlite3_close(connection);
  }
  TempDir dir_;
  SimulatedClock clock_;
  std::string path_ = dir_.File("state/events.db");
};

TEST_F(EventLogTest, EventComesBackAsItWas) {
  const auto log = Open();
  Event event = Named("backup.completed", Severity::kWarning);
  event.attributes = {{"bytes", "123"}, {"name", "a \"b\" c=d\n"}};
  log->Append(event);
  ASSERT_OK(log->Flush(kLong));
  ASSERT_OK_AND_ASSIGN(const auto events, log->List({}));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].id, 1u);
  EXPECT_EQ(events[0].time, clock_.Now());
  EXPECT_EQ(events[0].severity, Severity::kWarning);
  EXPECT_EQ(events[0].type, "backup.completed");
  EXPECT_EQ(events[0].subject, "postgres");
  EXPECT_EQ(events[0].message, "something happened");
  EXPECT_EQ(events[0].attributes, event.attributes);
}

TEST_F(EventLogTest, GivenTimeIsKept) {
  const auto log = Open();
  Event event = Named("a");
  event.time = absl::FromUnixMicros(1'234'567'890);
  log->Append(event);
  ASSERT_OK(log->Flush(kLong));
  EXPECT_EQ(log->List({})->at(0).time, event.time);
}

TEST_F(EventLogTest, AnEventReadsTheSameBeforeAndAfterItIsStored) {
  const auto log = Open();
  Event event = Named("a");
  event.time = absl::FromUnixNanos(1'234'567'891'234);
  log->Append(event);
  ASSERT_OK_AND_ASSIGN(const auto before, log->WaitAfter(0, kLong));
  ASSERT_OK(log->Flush(kLong));
  ASSERT_EQ(before.size(), 1u);
  EXPECT_EQ(before[0].time, absl::FromUnixMicros(1'234'567'891));
  EXPECT_EQ(log->List({})->at(0).time, before[0].time);
}

TEST_F(EventLogTest, EventsAndIdsSurviveARestart) {
  {
    const auto log = Open();
    log->Append(Named("one"));
    log->Append(Named("two"));
  }  // the destructor stores what is left
  const auto log = Open();
  EXPECT_EQ(log->last_id(), 2u);
  log->Append(Named("three"));
  ASSERT_OK(log->Flush(kLong));
  ASSERT_OK_AND_ASSIGN(const auto events, log->List({}));
  EXPECT_THAT(Types(events), ElementsAre("one", "two", "three"));
  EXPECT_THAT(Ids(events), ElementsAre(1, 2, 3));
}

TEST_F(EventLogTest, ListShowsWhatIsNotStoredYet) {
  const auto log = Open();
  for (int i = 0; i < 100; ++i) {
    log->Append(Named("e"));
    ASSERT_OK_AND_ASSIGN(const auto events, log->List({}));
    ASSERT_EQ(events.size(), static_cast<size_t>(i + 1));
  }
}

TEST_F(EventLogTest, FiltersSelect) {
  const auto log = Open();
  log->Append(Named("postgres.started"));
  log->Append(Named("postgres.crashed", Severity::kError));
  log->Append(Named("disk.stalled", Severity::kCritical));
  log->Append(Named("postgres%"));
  for (const bool flush : {false, true}) {
    if (flush) {
      ASSERT_OK(log->Flush(kLong));
    }
    EXPECT_THAT(Types(*log->List({.type_prefix = "postgres."})),
                ElementsAre("postgres.started", "postgres.crashed"));
    EXPECT_THAT(Types(*log->List({.type_prefix = "postgres%"})), ElementsAre("postgres%"));
    EXPECT_THAT(Types(*log->List({.type_prefix = "", .min_severity = Severity::kError})),
                ElementsAre("postgres.crashed", "disk.stalled"));
    EXPECT_THAT(Ids(*log->List({.after_id = 2, .type_prefix = ""})), ElementsAre(3, 4));
    EXPECT_THAT(Ids(*log->List({.type_prefix = "", .limit = 2})), ElementsAre(1, 2));
    EXPECT_THAT(Ids(*log->List({.type_prefix = "", .limit = 2, .newest = true})),
                ElementsAre(3, 4));
  }
}

TEST_F(EventLogTest, OnlyTheNewestAreKept) {
  const auto log = Open(/*keep=*/20);
  for (int i = 0; i < 100; ++i) {
    Event event = Named("e");
    event.attributes["n"] = std::to_string(i);
    log->Append(event);
    ASSERT_OK(log->Flush(kLong));
  }
  ASSERT_OK_AND_ASSIGN(const auto events, log->List({}));
  EXPECT_GE(events.size(), 20u);
  EXPECT_LE(events.size(), 21u);
  EXPECT_EQ(events.back().id, 100u);
  EXPECT_EQ(events.front().attributes.at("n"), std::to_string(events.front().id - 1));
}

TEST_F(EventLogTest, WatcherGetsEventsInOrderAndOnce) {
  const auto log = Open();
  base::Thread writer("writer", [&] {
    for (int i = 0; i < 500; ++i) log->Append(Named("e"));
  });
  uint64_t last = 0;
  while (last < 500) {
    const auto events = log->WaitAfter(last, kLong);
    ASSERT_OK(events.status());
    ASSERT_FALSE(events->empty());
    for (const Event& event : *events) ASSERT_EQ(event.id, ++last);
  }
}

TEST_F(EventLogTest, WatcherGetsNothingAtTheTimeout) {
  const auto log = Open();
  log->Append(Named("e"));
  const auto events = log->WaitAfter(1, absl::Milliseconds(5));
  ASSERT_OK(events.status());
  EXPECT_THAT(*events, IsEmpty());
}

TEST_F(EventLogTest, WatcherWhoFellBehindTheWindowMustResync) {
  const auto log = Open();
  for (int i = 0; i < 5000; ++i) {
    log->Append(Named("e"));
    if (i % 500 == 499) {  // so that none is dropped
      ASSERT_OK(log->Flush(kLong));
    }
  }
  const auto behind = log->WaitAfter(5000 - 4096 - 1, kLong);
  EXPECT_THAT(behind, StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("HINT: ")));
  ASSERT_TRUE(base::GetReason(behind.status()).has_value());
  EXPECT_EQ(base::GetReason(behind.status())->reason, "RESYNC_REQUIRED");
  EXPECT_EQ(log->WaitAfter(5000 - 4096, kLong)->size(), 4096u);
}

TEST_F(EventLogTest, WatcherOfAnotherHistoryMustResync) {
  const auto log = Open();
  EXPECT_THAT(log->WaitAfter(7, kLong), StatusIs(absl::StatusCode::kOutOfRange));
}

TEST_F(EventLogTest, WatcherGoesOnAfterARestart) {
  {
    const auto log = Open();
    for (int i = 0; i < 10; ++i) log->Append(Named("e"));
  }
  const auto log = Open();
  ASSERT_OK_AND_ASSIGN(const auto events, log->WaitAfter(7, kLong));
  EXPECT_THAT(Ids(events), ElementsAre(8, 9, 10));
}

TEST_F(EventLogTest, IdsOfALifeThatWasCutShortAreNotGivenAgain) {
  {
    const auto log = Open();
    log->Append(Named("e"));
    ASSERT_OK(log->Flush(kLong));
    // What the disk holds while the log is open is what a killed process leaves.
    for (const char* suffix : {"", "-wal"}) {
      ASSERT_OK_AND_ASSIGN(const auto bytes, base::ReadFile(path_ + suffix));
      dir_.Write(std::string("killed/events.db") + suffix, bytes);
    }
    for (int i = 0; i < 100; ++i) log->Append(Named("told to watchers"));
  }
  path_ = dir_.File("killed/events.db");
  EXPECT_GE(Open()->last_id(), 101u);
}

TEST_F(EventLogTest, CorruptDatabaseIsMovedAsideAndReported) {
  dir_.Write("state/events.db", std::string(8192, 'x'));
  const auto log = Open();
  ASSERT_NE(log, nullptr);
  ASSERT_OK(log->Flush(kLong));
  ASSERT_OK_AND_ASSIGN(const auto events, log->List({}));
  ASSERT_THAT(Types(events), ElementsAre("events.corrupt"));
  EXPECT_EQ(events[0].severity, Severity::kError);
  EXPECT_THAT(base::ReadFile(events[0].attributes.at("moved_to")),
              testing::IsOkAndHolds(std::string(8192, 'x')));
}

TEST_F(EventLogTest, DamageAnywhereNeverKeepsTheLogFromOpening) {
  {
    const auto log = Open();
    for (int i = 0; i < 200; ++i) log->Append(Named("event.number." + std::to_string(i)));
  }
  ASSERT_OK_AND_ASSIGN(const std::string good, base::ReadFile(path_));
  for (size_t at = 0; at < good.size(); at += 997) {
    std::string bad = good;
    for (size_t i = at; i < std::min(at + 64, bad.size()); ++i) bad[i] = static_cast<char>(~bad[i]);
    ASSERT_OK(base::RemoveTree(dir_.File("state")));
    dir_.Write("state/events.db", bad);
    const auto log = OpenEventLog(path_, clock_);
    if (!log.ok()) {  // the one other answer: the damage looks like a newer format
      EXPECT_THAT(log, StatusIs(absl::StatusCode::kFailedPrecondition)) << "damage at " << at;
      continue;
    }
    (*log)->Append(Named("after"));
    EXPECT_OK((*log)->Flush(kLong)) << "damage at " << at;
  }
}

TEST_F(EventLogTest, NewerFormatIsRefusedAndLeftAlone) {
  Open();
  Sql("PRAGMA user_version = 99");
  EXPECT_THAT(OpenEventLog(path_, clock_),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("HINT: ")));
  EXPECT_TRUE(base::PathExists(path_));
}

TEST_F(EventLogTest, StoreThatRefusesDropsTheOldestAndTellsHowMany) {
  const auto log = Open();
  log->Append(Named("before"));
  ASSERT_OK(log->Flush(kLong));
  Sql("CREATE TRIGGER refuse BEFORE INSERT ON event BEGIN SELECT RAISE(ABORT, 'disk is sick'); "
      "END");
  for (int i = 0; i < 1500; ++i) log->Append(Named("flood"));
  EXPECT_EQ(log->last_id(), 1501u) << "appending does not wait for the disk";
  EXPECT_THAT(log->Flush(absl::Milliseconds(1500)),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("disk is sick")));
  EXPECT_EQ(log->WaitAfter(1, kLong)->size(), 1500u) << "watchers get what is not stored";

  Sql("DROP TRIGGER refuse");
  ASSERT_OK_AND_ASSIGN(const auto told, log->WaitAfter(1501, kLong));
  ASSERT_THAT(Types(told), ElementsAre("events.dropped"));
  ASSERT_OK(log->Flush(kLong));
  ASSERT_OK_AND_ASSIGN(const auto flood, log->List({.type_prefix = "flood", .limit = 10000}));
  EXPECT_EQ(flood.size() + std::stoul(told[0].attributes.at("count")), 1500u);
  EXPECT_LE(flood.size(), 1024u);
  EXPECT_EQ(flood.back().id, 1501u) << "the newest are kept";
}

TEST_F(EventLogTest, TextIsBoundedAndValid) {
  const auto log = Open();
  Event event = Named("a");
  event.message = std::string(100'000, 'm') + "\xff";
  event.subject = "bad \xff byte";
  for (int i = 0; i < 100; ++i) event.attributes[std::to_string(i)] = "v";
  log->Append(event);
  ASSERT_OK_AND_ASSIGN(const auto events, log->WaitAfter(0, kLong));
  EXPECT_EQ(events.at(0).message.size(), 4096u);
  EXPECT_EQ(events.at(0).subject, "bad ? byte");
  EXPECT_EQ(events.at(0).attributes.size(), 32u);
}

TEST_F(EventLogTest, ManyWritersLoseNothing) {
  const auto log = Open();
  {
    std::vector<base::Thread> writers;
    for (int i = 0; i < 4; ++i) {
      writers.emplace_back("writer", [&] {
        for (int n = 0; n < 100; ++n) log->Append(Named("e"));
      });
    }
  }
  ASSERT_OK(log->Flush(kLong));
  EXPECT_EQ(log->List({.type_prefix = "", .limit = 1000})->size(), 400u);
}

}  // namespace
}  // namespace metal::observe
