// One rewind with a data directory, a source that answers SQL and a program in the place of
// pg_rewind; its server is never started.
#include "agent/node/rewind/rewind_run.h"

#include <sys/stat.h>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/data_directory.h"
#include "gmock/gmock.h"
#include "tests/harness/fake_sql_session.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/pg/golden_control_files.h"

namespace metal::node {
namespace {

using ::metal::testing::ReasonOf;
using ::metal::testing::SqlRow;
using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

constexpr const char* kPostgres = "#!/bin/sh\necho 'postgres (PostgreSQL) 15.20'\n";
// Finds that the target has to be rewound; a run that is no dry one is noted, and removes WAL that
// the source has recycled.
constexpr const char* kPgRewind = R"sh(#!/bin/sh
echo 'pg_rewind: servers diverged at WAL location 0/4000000 on timeline 2' >&2
echo 'pg_rewind: rewinding from last common checkpoint at 0/3000060 on timeline 2' >&2
case "$*" in *--dry-run*) exit 0;; esac
echo 'pg_rewind: need to copy 1 MB (total source directory size is 2 MB)' >&2
touch "$(dirname "$0")/ran"
for each; do case $each in --target-pgdata=*) rm -f "${each#*=}"/pg_wal/00000002????????????????;; esac; done
echo 'pg_rewind: Done!' >&2
)sh";

const pg::golden::ControlGolden& Golden() { return pg::golden::kControlFiles[1]; }

// A node on timeline 2, shut down at 0/5000028, and a primary that left that timeline at 0/4000000.
class RewindTarget {
 public:
  RewindTarget() {
    const std::vector<std::byte> control = pg::golden::Bytes(Golden());
    control_.assign(reinterpret_cast<const char*>(control.data()), control.size());
    dir_.Write("data/PG_VERSION", "15\n");
    dir_.Write("data/global/pg_control", control_);
    dir_.Write("data/pg_wal/00000002.history", "1\t0/3000000\twas promoted\n");
    dir_.Write("data/pg_wal/" + segment_, "WAL");
    EXPECT_EQ(chmod(data_dir_.c_str(), 0700), 0);
    EXPECT_OK(base::MakeDirectories(state_dir_));
    Program("postgres", kPostgres);
    Program("pg_rewind", kPgRewind);
    identity_.system_identifier = Golden().system_identifier;
    identity_.timeline = 3;
    identity_.flushed = base::Lsn{0x6000000};
    identity_.history = "1\t0/3000000\twas promoted\n2\t0/4000000\twas promoted\n";
    AnswerAsSource();
  }
  // What a rewind to that source left when it was cut off.
  void HalfRewind(const RewindRecord& record) {
    ASSERT_OK(pg::WriteRewindSentinel(data_dir_));
    dir_.Write("state/rewind/pg_control", control_);
    ASSERT_OK(StoreRewindRecord(state_dir_, record));
  }
  RewindRecord Record() const {
    RewindRecord record;
    record.source = "up:5432";
    record.system_identifier = Golden().system_identifier;
    record.source_timeline = 3;
    record.repeatable = true;
    record.source_history = {{1, base::Lsn{0x3000000}}, {2, base::Lsn{0x4000000}}};
    record.source_term = {.term = 5, .node_id = "b", .start_lsn = base::Lsn{0x4000100}};
    return record;
  }
  RewindRun Run() {
    pg::ReplicationSource source;
    source.host = "up";
    return RewindRun(
        {.steps = steps_,
         .events = events_,
         .install = install_,
         .state_dir = state_dir_,
         .node_id = node_id_,
         .source = source,
         .identify_source = [this](const pg::ReplicationSource&,
                                   absl::Duration) { return identity_; },
         .connect_remote = [this](const pg::ReplicationSource&) { return source_.Connect(); },
         .check_terms = [this](pg::SqlSession*) { return parted_; },
         .install_managed_files = [this]() -> absl::Status {
           // The second time is that of the start, which is not to come.
           if (installed_++ == 0) return absl::OkStatus();
           return absl::CancelledError("no server here");
         },
         .before_change = [] { return absl::OkStatus(); },
         .on_begun = [this] { ++begun_; },
         .on_floor = [](const RewindRecord&) {}});
  }
  // From now on the server is not to be started.
  void ForbidLaunch(const absl::Status& why) {
    steps_.may_launch = [why] { return why; };
  }
  bool marked() const { return base::PathExists(data_dir_ + "/" + pg::kRewindSentinel); }
  bool ran() const { return base::PathExists(dir_.File("bin/ran")); }
  // The last WAL before 0/4000000 is there.
  bool has_wal() const { return base::PathExists(data_dir_ + "/pg_wal/" + segment_); }
  int begun() const { return begun_; }
  const std::string& data_dir() const { return data_dir_; }
  const std::string& state_dir() const { return state_dir_; }

  absl::Status parted_;  // what the terms say
  pg::SourceIdentity identity_;
  std::vector<SqlRow> terms_ = {Term("5", "b", "0/4000100"), Term("4", "a", "0/3000100")};

  static SqlRow Term(const char* term, const char* node, const char* start) {
    return {{"term", term},    {"timeline", "3"}, {"start_lsn", start},
            {"at_us", "1000"}, {"node_id", node}, {"orchestrator_id", "o"}};
  }

 private:
  void Program(const std::string& name, const char* text) {
    EXPECT_EQ(chmod(dir_.Write("bin/" + name, text).c_str(), 0755), 0);
  }
  void AnswerAsSource() {
    source_.On("AS slot_exists", [this](const auto&) {
      return testing::MakeResult(
          {{{"in_recovery", "f"},
            {"system_identifier", fmt::format("{}", identity_.system_identifier)},
            {"control_timeline", fmt::format("{}", identity_.timeline)},
            {"current", identity_.flushed.ToString()},
            {"timeline", fmt::format("{:08X}", identity_.timeline)},
            {"full_page_writes", "t"},
            {"slot_exists", "f"}}});
    });
    source_.On("pg_stat_file", [](const auto&) { return testing::MakeResult({{{"there", "t"}}}); });
    source_.On("to_regclass", [](const auto&) {
      return testing::MakeResult({{{"present", "t"},
                                   {"mark", "metal-agent: terms and heartbeat of this cluster (1)"},
                                   {"whole", "t"}}});
    });
    source_.On("FROM metal.term_history",
               [this](const auto&) { return testing::MakeResult(terms_); });
  }

  testing::TempDir dir_;
  const std::string data_dir_ = dir_.File("data"), state_dir_ = dir_.File("state");
  const std::string node_id_ = "n", segment_ = "000000020000000000000003";
  std::string control_;
  testing::SimulatedClock clock_;
  observe::StatusBoard board_{clock_};
  metal::testing::RecordedEvents events_;
  pg::Install install_{dir_.File("bin")};
  pg::SupervisorOptions options_ = [this] {
    pg::SupervisorOptions options;
    options.data_dir = data_dir_;
    options.state_dir = options.socket_dir = state_dir_;
    return options;
  }();
  pg::PostgresSupervisor supervisor_{options_, install_, board_, events_, clock_};
  observe::Progress progress_{clock_};
  testing::FakePostgres source_{clock_};
  pg::SessionFactory nobody_ = []() -> absl::StatusOr<std::unique_ptr<pg::SqlSession>> {
    return absl::UnavailableError("nobody listens");
  };
  RoleStepContext steps_{clock_, supervisor_, nobody_, data_dir_, progress_};
  int installed_ = 0, begun_ = 0;
};

TEST(RewindRunTest, KeepsWhatTellsTheSourcesHistoryFromAnother) {
  RewindTarget target;
  EXPECT_THAT(target.Run().Run(), StatusIs(absl::StatusCode::kCancelled));  // at the start
  ASSERT_TRUE(target.ran());
  EXPECT_TRUE(target.has_wal()) << "what both have is put back";
  EXPECT_EQ(target.begun(), 1);
  ASSERT_OK_AND_ASSIGN(const RewindRecord record, LoadRewindRecord(target.state_dir()));
  EXPECT_EQ(record.stage, RewindStage::kStarted);
  ASSERT_TRUE(record.source_history && record.source_term);
  EXPECT_EQ(record.source_history->size(), 2u);
  EXPECT_EQ(record.source_history->at(1).switch_lsn, base::Lsn{0x4000000});
  EXPECT_EQ(record.source_term->term, 5u);
  EXPECT_EQ(record.source_term->node_id, "b");
  EXPECT_EQ(record.source_term->start_lsn, base::Lsn{0x4000100});
  ASSERT_TRUE(record.fork);
  EXPECT_EQ(record.fork->timeline, 2u);
  EXPECT_EQ(record.fork->lsn, base::Lsn{0x4000000});
}

TEST(RewindRunTest, DoesNotStartTheServerWhereThatIsForbiddenMeanwhile) {
  RewindTarget target;
  target.ForbidLaunch(absl::FailedPreconditionError("on a failed disk"));
  EXPECT_THAT(target.Run().Run(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("on a failed disk")));
  EXPECT_TRUE(target.ran()) << "that came after it";
  EXPECT_FALSE(target.marked()) << "the directory is whole";
}

TEST(RewindRunTest, GoesOnWithTheSameHistoryAlone) {
  const auto resumed = [](RewindTarget& target, const RewindRecord& record) {
    target.HalfRewind(record);
    return target.Run().DryRun().status();
  };
  {
    RewindTarget target;
    EXPECT_OK(resumed(target, target.Record()));
    // One term has begun since, on the same timeline.
    target.terms_.insert(target.terms_.begin(), RewindTarget::Term("6", "b", "0/5000100"));
    EXPECT_OK(target.Run().DryRun().status());
  }
  {
    RewindTarget target;
    target.terms_[0] = RewindTarget::Term("5", "c", "0/4000100");
    const absl::Status refused = resumed(target, target.Record());
    EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                  ::testing::AllOf(HasSubstr("no term 5 of b from 0/4000100"),
                                                   HasSubstr("HINT: make the node anew"))));
    EXPECT_EQ(ReasonOf(refused), "DATA_DIRECTORY_INCOMPLETE");
    EXPECT_TRUE(target.marked());
  }
  {
    RewindTarget target;
    target.identity_.history = "1\t0/3000000\twas promoted\n2\t0/4000060\twas promoted\n";
    EXPECT_EQ(ReasonOf(resumed(target, target.Record())), "DATA_DIRECTORY_INCOMPLETE");
  }
  {
    RewindTarget target;
    target.identity_.timeline = 4;
    EXPECT_EQ(ReasonOf(resumed(target, target.Record())), "DATA_DIRECTORY_INCOMPLETE");
  }
  {
    RewindTarget target;  // an agent of before wrote no more
    RewindRecord record = target.Record();
    record.source_history.reset();
    record.source_term.reset();
    target.terms_[0] = RewindTarget::Term("5", "c", "0/4000100");
    EXPECT_OK(resumed(target, record));
  }
}

TEST(RewindRunTest, ATermOnTwoTimelinesOfOneNumberIsRewoundWhereTheyBeganApart) {
  const absl::Status parted =
      base::WithReason(absl::FailedPreconditionError("two histories"),
                       {"HISTORY_DIVERGED", {{"rewind", "impossible"}, {"timeline", "2"}}});
  RewindTarget same;
  same.parted_ = parted;
  EXPECT_EQ(ReasonOf(same.Run().Run().status()), "HISTORY_DIVERGED") << "both left 1 at one place";
  EXPECT_FALSE(same.ran());
  RewindTarget apart;
  apart.parted_ = parted;
  apart.identity_.history = "1\t0/2000000\twas promoted\n2\t0/4000000\twas promoted\n";
  EXPECT_THAT(apart.Run().Run(), StatusIs(absl::StatusCode::kCancelled));  // at the start
  EXPECT_TRUE(apart.ran());
  EXPECT_FALSE(apart.has_wal()) << "its WAL of timeline 2 is none of the source's";
  RewindTarget unknown;  // nobody says which timelines they are
  unknown.identity_ = apart.identity_;
  unknown.parted_ = base::WithReason(absl::FailedPreconditionError("two histories"),
                                     {"HISTORY_DIVERGED", {{"rewind", "impossible"}}});
  EXPECT_EQ(ReasonOf(unknown.Run().Run().status()), "HISTORY_DIVERGED");
}

// Whatever call fails before pg_rewind runs: nothing is half rewound unless the sentinel says so.
TEST(RewindRunTest, IsHalfRewoundOnlyWithTheSentinel) {
  int at = 1;
  int unmarked = 0;
  for (bool fired = true; fired; ++at) {
    RewindTarget target;
    RewindRun run = target.Run();
    absl::Status done;
    std::vector<std::string> calls;
    {
      testing::FileFaults faults(target.data_dir(), {.at_call = at});
      done = run.Run().status();
      fired = faults.fired();
      calls = faults.calls();
    }
    ASSERT_FALSE(done.ok()) << at << ": there is no server";
    if (target.ran() && unmarked > 0) break;  // later calls come after pg_rewind
    if (target.ran()) continue;
    EXPECT_EQ(run.half_rewound(), target.marked()) << at << ": " << calls[at - 1];
    EXPECT_FALSE(run.half_rewound()) << at << ": " << done;
    if (std::ranges::none_of(calls, [](const std::string& each) {
          return each.find(pg::kRewindSentinel) != std::string::npos;
        })) {
      continue;
    }
    // The sentinel itself could not be written: nothing is left that asks for a repetition.
    ++unmarked;
    EXPECT_THAT(LoadRewindRecord(target.state_dir()), StatusIs(absl::StatusCode::kNotFound)) << at;
    EXPECT_EQ(target.begun(), 0) << at;
  }
  EXPECT_GE(unmarked, 2) << "making it, and syncing it";
}

}  // namespace
}  // namespace metal::node
