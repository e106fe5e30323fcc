#include "agent/backup/wal_leftovers.h"

#include <string>
#include <vector>

#include "agent/base/file.h"
#include "tests/harness/recorded_events.h"
#include "tests/harness/simulated_clock.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"
#include "tests/unit/backup/wal_fixture.h"

namespace metal::backup {
namespace {

using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class WalLeftoversTest : public ::testing::Test {
 protected:
  TestSegment Segment(unsigned number) {
    return {.start = base::Lsn{number * kTestSegmentSize}, .seed = number};
  }
  void Leave(const std::string& name, const std::string& contents) {
    data_.Write("pg_wal/" + name, contents);
    data_.Write("pg_wal/archive_status/" + name + ".ready", "");
  }
  void Leave(const TestSegment& segment) { Leave(segment.Name(), segment.Bytes()); }
  absl::StatusOr<int> Archive() {
    return ArchiveLeftovers({data_.path(), scratch_.path(), kTestSystem}, archive_);
  }
  std::vector<std::string> Notes() {
    return *base::ListDirectory(data_.File("pg_wal/archive_status"));
  }

  metal::testing::TempDir data_, scratch_, repository_;
  testing::SimulatedClock clock_;
  metal::testing::RecordedEvents events_;
  WalArchive archive_{{.repository_path = repository_.File("repository")}, clock_, &events_};
};

TEST_F(WalLeftoversTest, WhatIsReadyIsArchivedAndNotedAsDone) {
  const std::string history = "1\t0/3000000\tno recovery target specified\n";
  Leave(Segment(3));
  Leave(Segment(2));
  Leave("00000002.history", history);
  data_.Write("pg_wal/archive_status/" + Segment(1).Name() + ".done", "");
  data_.Write("pg_wal/archive_status/notes.ready", "");
  EXPECT_THAT(Archive(), IsOkAndHolds(3));
  for (const unsigned each : {2u, 3u}) {
    EXPECT_THAT(archive_.FetchBytes(kTestSystem, Segment(each).Name()),
                IsOkAndHolds(Segment(each).Bytes()));
  }
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, "00000002.history"), IsOkAndHolds(history));
  EXPECT_THAT(Notes(),
              ElementsAre(Segment(1).Name() + ".done", Segment(2).Name() + ".done",
                          Segment(3).Name() + ".done", "00000002.history.done", "notes.ready"));
  EXPECT_THAT(Archive(), IsOkAndHolds(0)) << "nothing is left";
  EXPECT_THAT(*base::ListDirectory(scratch_.path()), ElementsAre());
}

TEST_F(WalLeftoversTest, WhatTheServerRemovedIsNoLongerReady) {
  data_.Write("pg_wal/archive_status/" + Segment(2).Name() + ".ready", "");
  Leave(Segment(3));
  EXPECT_THAT(Archive(), IsOkAndHolds(1));
  EXPECT_THAT(Notes(), ElementsAre(Segment(3).Name() + ".done"));
}

TEST_F(WalLeftoversTest, OneThatIsRefusedIsLeftAndTheRestGoesOn) {
  TestSegment other = Segment(2);
  other.seed = 77;
  ASSERT_OK(archive_.PushBytes(other.Name(), BytesOf(other.Bytes()), kTestSystem));
  Leave(Segment(2));
  Leave(Segment(3));
  EXPECT_THAT(Archive(), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("other bytes")));
  EXPECT_THAT(archive_.FetchBytes(kTestSystem, other.Name()), IsOkAndHolds(other.Bytes()));
  EXPECT_THAT(Notes(), ElementsAre(Segment(2).Name() + ".ready", Segment(3).Name() + ".done"));
}

TEST_F(WalLeftoversTest, WithoutADataDirectoryThereIsAnError) {
  EXPECT_THAT(Archive(), StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace metal::backup
