#include "agent/backup/wal_archive.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <random>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "agent/store/repository.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

using absl::StatusCode;
using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class WalArchiveTest : public ::testing::Test {
 protected:
  absl::StatusOr<WalPushResult> Push(const TestSegment& segment, uint64_t system = kTestSystem) {
    return archive_.PushBytes(segment.Name(), BytesOf(segment.Bytes()), system);
  }
  std::string PathOf(const std::string& name, const char* timeline = "00000001") {
    return repository_ + "/7300000000000000001/wal/" + timeline + "/" + name + ".wal";
  }
  std::vector<std::string> Incoming() {
    auto names = base::ListDirectory(repository_ + "/7300000000000000001/wal/incoming");
    return names.ok() ? *names : std::vector<std::string>();
  }
  // Changes one byte of a file.
  void Damage(const std::string& path, size_t offset) {
    auto bytes = base::ReadFile(path, 64 << 20);
    ASSERT_OK(bytes.status());
    ASSERT_LT(offset, bytes->size());
    (*bytes)[offset] = static_cast<char>((*bytes)[offset] ^ 1);
    ASSERT_OK(base::WriteFileDurably(path, *bytes));
  }
  WalRange Range(uint64_t from, uint64_t to, base::TimelineId timeline = 1) {
    return {.system_identifier = kTestSystem,
            .timeline = timeline,
            .from = base::Lsn{from},
            .to = base::Lsn{to},
            .segment_size = kTestSegmentSize};
  }

  testing::TempDir directory_;
  const std::string repository_ = directory_.File("repository");
  testing::SimulatedClock clock_;
  metal::testing::RecordedEvents events_;
  observe::Progress progress_{clock_};
  WalArchive archive_{{.repository_path = repository_}, clock_, &events_};
};

TEST_F(WalArchiveTest, PushedSegmentIsFetchedUnchanged) {
  const TestSegment segment;
  ASSERT_OK_AND_ASSIGN(const WalPushResult result, Push(segment));
  EXPECT_EQ(result.system_identifier, kTestSystem);
  EXPECT_EQ(result.raw_bytes, kTestSegmentSize);
  EXPECT_LT(result.stored_bytes, kTestSegmentSize * 3 / 4);
  EXPECT_FALSE(result.already_present);
  EXPECT_TRUE(base::PathExists(PathOf(segment.Name())));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, segment.Name()), IsOkAndHolds(segment.Bytes()));
  EXPECT_OK(archive_.Verify(kTestSystem, segment.Name()));
  EXPECT_THAT(Incoming(), IsEmpty());
  EXPECT_THAT(events_.types(), IsEmpty());
}

TEST_F(WalArchiveTest, EveryCodecAndSegmentSizeSurvives) {
  unsigned seed = 1;
  for (const auto codec :
       {stream::CodecKind::kNone, stream::CodecKind::kZstd, stream::CodecKind::kLz4}) {
    WalArchive archive({.repository_path = repository_, .codec = codec}, clock_, &events_);
    for (const uint64_t size : {base::kMiB, 2 * base::kMiB, 16 * base::kMiB}) {
      const TestSegment segment{
          .timeline = 1 + seed, .start = base::Lsn{size}, .size = size, .seed = seed};
      ++seed;
      ASSERT_OK(archive.PushBytes(segment.Name(), BytesOf(segment.Bytes()), kTestSystem));
      std::string fetched;
      ASSERT_OK(archive_.Fetch(kTestSystem, segment.Name(), [&](std::span<const std::byte> piece) {
        fetched.append(reinterpret_cast<const char*>(piece.data()), piece.size());
        return absl::OkStatus();
      }));
      EXPECT_TRUE(fetched == segment.Bytes()) << stream::CodecName(codec) << " " << size;
    }
  }
}

TEST_F(WalArchiveTest, FileIsReadFromItsBeginningWhateverTheOffset) {
  const TestSegment segment;
  const std::string path = directory_.Write("segment", segment.Bytes());
  ASSERT_OK_AND_ASSIGN(const base::UniqueFd fd, base::OpenFile(path, O_RDONLY));
  ASSERT_EQ(lseek(fd.get(), 1000, SEEK_SET), 1000);
  ASSERT_OK(archive_.Push(segment.Name(), fd.get(), 0));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, segment.Name()), IsOkAndHolds(segment.Bytes()));
}

TEST_F(WalArchiveTest, HistoryAndLabelAreKept) {
  const std::string history = "1\t0/3000000\tno recovery target specified\n";
  const std::string label = "START WAL LOCATION: 0/100028 (file 000000010000000000000001)\n";
  ASSERT_OK(archive_.PushBytes("00000002.history", BytesOf(history), kTestSystem));
  ASSERT_OK(
      archive_.PushBytes("000000010000000000000001.00000028.backup", BytesOf(label), kTestSystem));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, "00000002.history"), IsOkAndHolds(history));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, "000000010000000000000001.00000028.backup"),
              IsOkAndHolds(label));
  EXPECT_TRUE(base::PathExists(PathOf("00000002.history", "00000002")));
}

TEST_F(WalArchiveTest, SameBytesAgainAreAccepted) {
  ASSERT_OK(Push({}));
  ASSERT_OK_AND_ASSIGN(const WalPushResult again, Push({}));
  EXPECT_TRUE(again.already_present);
  WalArchive other_codec({.repository_path = repository_, .codec = stream::CodecKind::kLz4}, clock_,
                         &events_);
  ASSERT_OK_AND_ASSIGN(
      const WalPushResult other,
      other_codec.PushBytes(TestSegment{}.Name(), BytesOf(TestSegment{}.Bytes()), kTestSystem));
  EXPECT_TRUE(other.already_present);
  EXPECT_EQ(archive_.Statistics().pushed, 1u);
  EXPECT_EQ(archive_.Statistics().already_present, 1u);
  EXPECT_THAT(events_.types(), IsEmpty());
}

TEST_F(WalArchiveTest, OtherBytesUnderTheSameNameAreAConflictAndNothingIsOverwritten) {
  const TestSegment segment;
  ASSERT_OK(Push(segment));
  ASSERT_OK_AND_ASSIGN(const std::string stored, base::ReadFile(PathOf(segment.Name())));
  std::string last_byte_differs = segment.Bytes();
  last_byte_differs.back() = static_cast<char>(last_byte_differs.back() + 1);
  for (const std::string& bytes : {TestSegment{.seed = 2}.Bytes(), last_byte_differs}) {
    const auto pushed = archive_.PushBytes(segment.Name(), BytesOf(bytes), kTestSystem);
    ASSERT_THAT(pushed, StatusIs(StatusCode::kFailedPrecondition, HasSubstr("HINT")));
    EXPECT_EQ(base::GetReason(pushed.status())->reason, "WAL_CONFLICT");
    EXPECT_EQ(base::GetReason(pushed.status())->metadata.at("file"), segment.Name());
  }
  EXPECT_THAT(base::ReadFile(PathOf(segment.Name())), IsOkAndHolds(stored));
  // Postgres tries for ever; people are told once.
  ASSERT_THAT(events_.types(), ElementsAre("wal.conflict"));
  EXPECT_EQ(events_.events()[0].severity, observe::Severity::kCritical);
  EXPECT_EQ(archive_.Statistics().failed, 2u);
}

TEST_F(WalArchiveTest, ForeignWalIsRefused) {
  EXPECT_THAT(Push({.system_identifier = 42}),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("foreign")));
  EXPECT_FALSE(base::PathExists(repository_ + "/42"));
  EXPECT_THAT(events_.types(), ElementsAre("wal.push_failed"));
}

TEST_F(WalArchiveTest, NothingIsCreatedForBadNames) {
  for (const std::string_view name :
       {"../../escape", "/etc/cron.d/evil", "", "000000010000000000000001.wal"}) {
    EXPECT_THAT(archive_.PushBytes(name, BytesOf(TestSegment{}.Bytes()), kTestSystem),
                StatusIs(StatusCode::kInvalidArgument));
    EXPECT_THAT(archive_.FetchBytes(kTestSystem, name), StatusIs(StatusCode::kInvalidArgument));
  }
  EXPECT_FALSE(base::PathExists(repository_));
}

TEST_F(WalArchiveTest, OnlyRegularReadableFilesAreTaken) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const base::UniqueFd reader(ends[0]), writer(ends[1]);
  EXPECT_THAT(archive_.Push(TestSegment{}.Name(), reader.get(), 0),
              StatusIs(StatusCode::kInvalidArgument));
  ASSERT_OK_AND_ASSIGN(
      const base::UniqueFd write_only,
      base::OpenFile(directory_.Write("segment", TestSegment{}.Bytes()), O_WRONLY));
  EXPECT_THAT(archive_.Push(TestSegment{}.Name(), write_only.get(), 0),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(archive_.Push(TestSegment{}.Name(), -1, 0), ::testing::Not(::metal::testing::IsOk()));
}

TEST_F(WalArchiveTest, ARepositoryThatIsNotMountedTakesNoWalAfterARestartEither) {
  const WalArchiveOptions options{.repository_path = repository_, .state_dir = directory_.path()};
  const TestSegment segment;
  const auto push = [&](WalArchive& archive) {
    return archive.PushBytes(segment.Name(), BytesOf(segment.Bytes()), kTestSystem).status();
  };
  WalArchive before(options, clock_, nullptr);
  ASSERT_OK(push(before));
  ASSERT_OK(base::RemoveTree(repository_));
  ASSERT_OK(base::MakeDirectories(repository_));
  WalArchive after(options, clock_, nullptr);
  for (WalArchive* archive : {&before, &after}) {
    EXPECT_THAT(push(*archive), StatusIs(StatusCode::kUnavailable, HasSubstr("mounted")));
    EXPECT_THAT(archive->Verify(kTestSystem, segment.Name()), StatusIs(StatusCode::kUnavailable));
  }
  ASSERT_OK(store::Repository::OpenOrCreate(repository_));
  for (WalArchive* archive : {&before, &after}) {
    EXPECT_THAT(push(*archive),
                StatusIs(StatusCode::kFailedPrecondition, HasSubstr("repository.id")));
  }
  EXPECT_THAT(base::ListDirectory(repository_), IsOkAndHolds(ElementsAre("metal-repository")));
}

TEST_F(WalArchiveTest, AbsentFileIsNotFoundButAbsentRepositoryIsUnavailable) {
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, TestSegment{}.Name()),
              StatusIs(StatusCode::kUnavailable));
  ASSERT_OK(Push({}));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, "000000010000000000000009"),
              StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(archive_.FetchBytes(42, TestSegment{}.Name()), StatusIs(StatusCode::kNotFound));
  ASSERT_EQ(rename(repository_.c_str(), directory_.File("moved").c_str()), 0);
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, TestSegment{}.Name()),
              StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(Push({.start = base::Lsn{3 * kTestSegmentSize}}),
              StatusIs(StatusCode::kUnavailable, HasSubstr("mounted")));
  EXPECT_FALSE(base::PathExists(repository_)) << "must not be created on the filesystem below";
}

TEST_F(WalArchiveTest, DamageAnywhereIsFound) {
  const TestSegment segment;
  ASSERT_OK(Push(segment));
  const std::string path = PathOf(segment.Name());
  ASSERT_OK_AND_ASSIGN(const std::string good, base::ReadFile(path));
  std::minstd_rand random(7);
  for (int i = 0; i < 100; ++i) {
    const size_t offset = i < 40 ? static_cast<size_t>(i) * 4 : random() % good.size();
    Damage(path, offset);
    const auto fetched = archive_.FetchBytes(kTestSystem, segment.Name());
    EXPECT_THAT(fetched, StatusIs(StatusCode::kDataLoss)) << "byte " << offset;
    ASSERT_OK(base::WriteFileDurably(path, good));
  }
  for (const size_t length :
       {size_t{0}, size_t{1}, kWalObjectHeaderSize - 1, kWalObjectHeaderSize, good.size() - 1}) {
    ASSERT_OK(base::WriteFileDurably(path, std::string_view(good).substr(0, length)));
    EXPECT_THAT(archive_.FetchBytes(kTestSystem, segment.Name()), StatusIs(StatusCode::kDataLoss))
        << length;
    EXPECT_THAT(archive_.MissingSegments(Range(kTestSegmentSize, kTestSegmentSize + 1)),
                IsOkAndHolds(ElementsAre(segment.Name())));
  }
  ASSERT_OK(base::WriteFileDurably(path, good + "x"));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, segment.Name()), StatusIs(StatusCode::kDataLoss));
}

TEST_F(WalArchiveTest, FileUnderAnotherNameOrClusterIsDamage) {
  ASSERT_OK(Push({}));
  const std::string other = "000000010000000000000002";
  ASSERT_OK_AND_ASSIGN(const std::string good, base::ReadFile(PathOf(TestSegment{}.Name())));
  ASSERT_OK(base::WriteFileDurably(PathOf(other), good));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, other),
              StatusIs(StatusCode::kDataLoss, HasSubstr("it is file")));
}

TEST_F(WalArchiveTest, SameBytesRepairADamagedFileAndOthersDoNot) {
  const TestSegment segment;
  ASSERT_OK(Push(segment));
  const std::string path = PathOf(segment.Name());
  Damage(path, 5000);
  EXPECT_THAT(Push({.seed = 2}), StatusIs(StatusCode::kFailedPrecondition));
  ASSERT_OK(Push(segment));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, segment.Name()), IsOkAndHolds(segment.Bytes()));
  EXPECT_THAT(events_.types(), ElementsAre("wal.conflict", "wal.repaired", "wal.push_recovered"));
  ASSERT_EQ(truncate(path.c_str(), 3000), 0);
  ASSERT_OK(Push(segment));
  EXPECT_OK(archive_.Verify(kTestSystem, segment.Name()));
  Damage(path, 20);  // the header: nobody knows any more what the file held
  EXPECT_THAT(Push(segment), StatusIs(StatusCode::kDataLoss));
}

TEST_F(WalArchiveTest, MissingSegmentsAreNamedInOrder) {
  ASSERT_OK(Push({.start = base::Lsn{2 * kTestSegmentSize}}));
  ASSERT_OK(Push({.start = base::Lsn{4 * kTestSegmentSize}}));
  EXPECT_THAT(archive_.MissingSegments(Range(kTestSegmentSize + 40, 5 * kTestSegmentSize)),
              IsOkAndHolds(ElementsAre("000000010000000000000001", "000000010000000000000003")));
  // The end is exclusive: a range that ends on a boundary does not need the next segment.
  EXPECT_THAT(archive_.MissingSegments(Range(2 * kTestSegmentSize, 3 * kTestSegmentSize)),
              IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(archive_.MissingSegments(Range(2 * kTestSegmentSize, 3 * kTestSegmentSize + 1)),
              IsOkAndHolds(ElementsAre("000000010000000000000003")));
}

TEST_F(WalArchiveTest, HistoryIsNeededFromTimelineTwoOn) {
  const TestSegment segment{.timeline = 2};
  ASSERT_OK(Push(segment));
  WalRange range = Range(kTestSegmentSize, 2 * kTestSegmentSize, 2);
  EXPECT_THAT(archive_.MissingSegments(range), IsOkAndHolds(ElementsAre("00000002.history")));
  range.require_history = false;
  EXPECT_THAT(archive_.MissingSegments(range), IsOkAndHolds(IsEmpty()));
}

TEST_F(WalArchiveTest, SenselessRangesAreRejected) {
  WalRange bad_size = Range(1, 2);
  bad_size.segment_size = 3 * base::kMiB;
  EXPECT_THAT(archive_.MissingSegments(bad_size), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(archive_.MissingSegments(Range(2, 2)), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(archive_.MissingSegments(Range(1, 2, 0)), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(archive_.MissingSegments(Range(1, UINT64_MAX)),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(WalArchiveTest, WaitEndsWhenTheLastSegmentArrives) {
  ASSERT_OK(Push({}));
  base::Thread pusher("pusher",
                      [&] { EXPECT_OK(Push({.start = base::Lsn{2 * kTestSegmentSize}})); });
  EXPECT_OK(archive_.WaitForSegments(Range(kTestSegmentSize, 3 * kTestSegmentSize), absl::Hours(1),
                                     progress_));
  EXPECT_EQ(progress_.Snapshot().done_bytes, 2 * kTestSegmentSize);
  EXPECT_EQ(progress_.Snapshot().total_bytes, 2 * kTestSegmentSize);
}

TEST_F(WalArchiveTest, WaitSeesWhatAnotherProcessStores) {
  ASSERT_OK(archive_.Prepare());
  WalArchive other({.repository_path = repository_}, clock_, nullptr);
  base::Thread pusher("pusher", [&] {
    EXPECT_OK(other.PushBytes(TestSegment{}.Name(), BytesOf(TestSegment{}.Bytes()), kTestSystem));
  });
  EXPECT_OK(archive_.WaitForSegments(Range(kTestSegmentSize, 2 * kTestSegmentSize), absl::Hours(1),
                                     progress_));
}

TEST_F(WalArchiveTest, WaitNamesTheFirstMissingSegmentAtItsDeadline) {
  ASSERT_OK(Push({}));
  const absl::Status status = archive_.WaitForSegments(
      Range(kTestSegmentSize, 4 * kTestSegmentSize), absl::ZeroDuration(), progress_);
  EXPECT_THAT(status,
              StatusIs(StatusCode::kDeadlineExceeded, HasSubstr("000000010000000000000002")));
  EXPECT_EQ(base::GetReason(status)->reason, "WAL_MISSING");
  EXPECT_EQ(base::GetReason(status)->metadata.at("first_missing"), "000000010000000000000002");
}

// Calls `at_look` each time somebody asks for the monotonic time, as a wait does in every round.
class HookedClock final : public base::Clock {
 public:
  absl::Time Now() override { return inner_.Now(); }
  base::MonotonicTime Monotonic() override {
    if (const auto hook = std::exchange(at_look, nullptr)) {
      hook();
      at_look = hook;
    }
    return inner_.Monotonic();
  }
  base::MonotonicTime SinceBoot() override { return inner_.SinceBoot(); }
  void Sleep(absl::Duration duration) override { inner_.Sleep(duration); }
  void Advance(absl::Duration duration) { inner_.Advance(duration); }
  std::function<void()> at_look;

 private:
  testing::SimulatedClock inner_;
};

TEST_F(WalArchiveTest, OnlyABacklogMakesAWaitLonger) {
  struct Case {
    const char* what;
    uint64_t first;  // segment that is pushed in the first round
    uint64_t step;   // to that of the next round
    bool longer;
  };
  for (const Case& each : {Case{"a backlog that gets shorter", 20, 1, true},
                           Case{"the same segment again", 3, 0, false},
                           Case{"segments behind the range", 61, 1, false}}) {
    SCOPED_TRACE(each.what);
    testing::TempDir directory;
    HookedClock clock;
    WalArchive archive({.repository_path = directory.File("repository")}, clock, nullptr);
    observe::Progress progress(clock_);
    int rounds = 0;
    clock.at_look = [&] {
      // Twice in each patience, for many times as long.
      clock.Advance(absl::Seconds(30));
      const uint64_t segment = each.first + each.step * static_cast<uint64_t>(rounds);
      const TestSegment pushed{.start = base::Lsn{segment * kTestSegmentSize}};
      EXPECT_OK(archive.PushBytes(pushed.Name(), BytesOf(pushed.Bytes()), kTestSystem));
      if (++rounds == 8) progress.RequestCancel();
    };
    const absl::Status status = archive.WaitForSegments(
        Range(60 * kTestSegmentSize, 61 * kTestSegmentSize), absl::Minutes(1), progress);
    EXPECT_EQ(status.code(), each.longer ? StatusCode::kCancelled : StatusCode::kDeadlineExceeded);
  }
}

TEST_F(WalArchiveTest, WaitIsCancelled) {
  ASSERT_OK(archive_.Prepare());
  base::Thread canceller("canceller", [&] { progress_.RequestCancel(); });
  EXPECT_THAT(archive_.WaitForSegments(Range(kTestSegmentSize, 4 * kTestSegmentSize),
                                       absl::Hours(1), progress_),
              StatusIs(StatusCode::kCancelled));
}

TEST_F(WalArchiveTest, TimelinesAreDescribedWithTheirGaps) {
  for (const uint64_t number : {3, 4, 7})
    ASSERT_OK(Push({.start = base::Lsn{number * kTestSegmentSize}}));
  ASSERT_OK(archive_.PushBytes("00000002.history", BytesOf("1\t0/700000\tx\n"), kTestSystem));
  ASSERT_OK_AND_ASSIGN(const std::vector<WalTimeline> timelines,
                       archive_.ListTimelines(kTestSystem));
  ASSERT_EQ(timelines.size(), 2u);
  EXPECT_EQ(timelines[0].timeline, 1u);
  EXPECT_EQ(timelines[0].segment_count, 3u);
  EXPECT_EQ(timelines[0].first_segment, "000000010000000000000003");
  EXPECT_EQ(timelines[0].last_segment, "000000010000000000000007");
  EXPECT_THAT(timelines[0].missing,
              ElementsAre("000000010000000000000005", "000000010000000000000006"));
  EXPECT_EQ(timelines[0].stored_bytes,
            archive_.Statistics().stored_bytes - timelines[1].stored_bytes);
  EXPECT_FALSE(timelines[0].has_history);
  EXPECT_TRUE(timelines[1].has_history);
  EXPECT_EQ(timelines[1].segment_count, 0u);
  EXPECT_THAT(archive_.ListTimelines(42), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(archive_.ListClusters(), IsOkAndHolds(ElementsAre(kTestSystem)));
}

TEST_F(WalArchiveTest, GarbageOfACrashIsRemovedAndFilesBeingWrittenAreNot) {
  ASSERT_OK(Push({}));
  const std::string incoming = "repository/7300000000000000001/wal/incoming/";
  directory_.Write(incoming + "000000010000000000000002.1.0", "half a file");
  const std::string living =
      directory_.Write(incoming + "000000010000000000000003.2.0", "half a file");
  ASSERT_OK_AND_ASSIGN(const base::UniqueFd fd, base::OpenFile(living, O_RDWR));
  ASSERT_EQ(flock(fd.get(), LOCK_EX), 0);
  WalArchive next({.repository_path = repository_}, clock_, nullptr);
  ASSERT_OK(next.Prepare());
  EXPECT_THAT(Incoming(), ElementsAre("000000010000000000000003.2.0"));
  EXPECT_OK(archive_.Verify(kTestSystem, TestSegment{}.Name()));
}

TEST_F(WalArchiveTest, DirectoryThatHoldsSomethingElseIsLeftAlone) {
  directory_.Write("repository/precious", "data");
  EXPECT_THAT(Push({}), StatusIs(StatusCode::kFailedPrecondition));
  EXPECT_THAT(base::ListDirectory(repository_), IsOkAndHolds(ElementsAre("precious")));
}

TEST_F(WalArchiveTest, StatisticsTellTheLastErrorUntilThingsWorkAgain) {
  EXPECT_THAT(Push({.system_identifier = 42}), StatusIs(StatusCode::kFailedPrecondition));
  WalArchiveStatistics statistics = archive_.Statistics();
  EXPECT_EQ(statistics.failed, 1u);
  EXPECT_THAT(statistics.last_error, HasSubstr("foreign"));
  EXPECT_EQ(statistics.last_failed, TestSegment{}.Name());
  EXPECT_EQ(statistics.last_failed_time, clock_.Now());
  ASSERT_OK(Push({}));
  statistics = archive_.Statistics();
  EXPECT_EQ(statistics.last_error, "");
  EXPECT_EQ(statistics.last_pushed, TestSegment{}.Name());
  EXPECT_EQ(statistics.pushed, 1u);
  EXPECT_EQ(statistics.raw_bytes, kTestSegmentSize);
  EXPECT_THAT(events_.types(), ElementsAre("wal.push_failed", "wal.push_recovered"));
}

TEST_F(WalArchiveTest, ThreadsThatPushTheSameFileAgree) {
  constexpr int kThreads = 8;
  std::atomic<int> stored{0}, present{0}, conflicts{0};
  {
    std::vector<base::Thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back("pusher", [&, i] {
        for (uint64_t number = 1; number <= 5; ++number) {
          // One of the threads is of a split brain.
          const auto result =
              Push({.start = base::Lsn{number * kTestSegmentSize}, .seed = i == 0 ? 99u : 1u});
          if (!result.ok())
            ++conflicts;
          else
            ++(result->already_present ? present : stored);
        }
      });
    }
  }
  EXPECT_EQ(stored, 5);
  EXPECT_EQ(stored + present + conflicts, 5 * kThreads);
  EXPECT_GE(conflicts, 5);
  for (uint64_t number = 1; number <= 5; ++number) {
    EXPECT_OK(archive_.Verify(kTestSystem,
                              TestSegment{.start = base::Lsn{number * kTestSegmentSize}}.Name()));
  }
  EXPECT_THAT(Incoming(), IsEmpty());
}

}  // namespace
}  // namespace metal::backup
