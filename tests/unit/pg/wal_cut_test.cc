#include "agent/pg/wal_cut.h"

#include "agent/base/file.h"
#include "gmock/gmock.h"
#include "tests/harness/file_faults.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::pg {
namespace {

using ::metal::testing::IsOkAndHolds;
using ::metal::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kSegment = base::kMiB;

class WalCutTest : public ::testing::Test {
 protected:
  WalCutTest() {
    dir_.Write("data/pg_wal/000000010000000000000002", std::string(kSegment, 'a'));
    dir_.Write("data/pg_wal/000000010000000000000003", std::string(kSegment, 'b'));
    dir_.Write("data/pg_wal/000000010000000000000004", std::string(kSegment, 'c'));
    dir_.Write("data/pg_wal/000000010000000000000005", std::string(kSegment, 'd'));
    dir_.Write("data/pg_wal/000000020000000000000003", "another timeline's");
    dir_.Write("data/pg_wal/00000002.history", "history");
    dir_.Write("data/pg_wal/archive_status/000000010000000000000003.done", "");
    dir_.Write("data/pg_wal/archive_status/000000010000000000000004.done", "");
    dir_.Write("data/pg_wal/archive_status/000000010000000000000005.ready", "");
  }
  std::string Read(const std::string& name) {
    return base::ReadFile(dir_.File("data/pg_wal/" + name)).value_or("<none>");
  }

  testing::TempDir dir_;
  std::string data_ = dir_.File("data");
};

TEST_F(WalCutTest, TheRestOfTheSegmentIsZeroAndLaterOnesAreGone) {
  const base::Lsn from{kSegment * 3 + 300'000};
  EXPECT_THAT(CutWal(data_, 1, from, kSegment),
              IsOkAndHolds(ElementsAre("000000010000000000000003", "000000010000000000000004",
                                       "000000010000000000000005")));
  EXPECT_EQ(Read("000000010000000000000002"), std::string(kSegment, 'a'));
  EXPECT_EQ(Read("000000010000000000000003"),
            std::string(300'000, 'b') + std::string(kSegment - 300'000, '\0'));
  EXPECT_EQ(Read("000000020000000000000003"), "another timeline's");
  EXPECT_EQ(Read("00000002.history"), "history");
  EXPECT_THAT(base::ListDirectory(data_ + "/pg_wal/archive_status"),
              IsOkAndHolds(ElementsAre("000000010000000000000003.done")));
  EXPECT_THAT(CutWal(data_, 1, from, kSegment), IsOkAndHolds(IsEmpty())) << "nothing more to do";
}

TEST_F(WalCutTest, ASegmentThatBeginsThereIsRemoved) {
  EXPECT_THAT(CutWal(data_, 1, base::Lsn{kSegment * 4}, kSegment),
              IsOkAndHolds(ElementsAre("000000010000000000000004", "000000010000000000000005")));
  EXPECT_EQ(Read("000000010000000000000003"), std::string(kSegment, 'b'));
}

// Whatever call fails, what is before the cut is whole, and a repetition completes it.
TEST_F(WalCutTest, AFailureLosesNothingBeforeTheCut) {
  const base::Lsn from{kSegment * 3 + 8192};
  bool fired = true;
  for (int at = 1; fired; ++at) {
    dir_.Write("data/pg_wal/000000010000000000000003", std::string(kSegment, 'b'));
    dir_.Write("data/pg_wal/000000010000000000000004", std::string(kSegment, 'c'));
    absl::Status done;
    std::string call;
    {
      testing::FileFaults faults(data_, {.at_call = at});
      done = CutWal(data_, 1, from, kSegment).status();
      fired = faults.fired();
      if (fired) call = faults.calls().at(static_cast<size_t>(at - 1));
    }
    // A directory that was synced has nothing left to say when it is closed.
    const bool matters = fired && call != "close " + data_ + "/pg_wal";
    EXPECT_EQ(done.ok(), !matters) << at << ": " << call;
    EXPECT_EQ(Read("000000010000000000000003").substr(0, 8192), std::string(8192, 'b')) << at;
    ASSERT_OK(CutWal(data_, 1, from, kSegment));
    EXPECT_EQ(Read("000000010000000000000003").substr(8192), std::string(kSegment - 8192, '\0'));
    EXPECT_EQ(Read("000000010000000000000004"), "<none>") << at;
  }
}

TEST_F(WalCutTest, NoDirectoryIsAnError) {
  EXPECT_THAT(CutWal(data_ + "/none", 1, base::Lsn{kSegment}, kSegment),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace metal::pg
