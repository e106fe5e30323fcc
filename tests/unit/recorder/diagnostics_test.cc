#include "agent/recorder/diagnostics.h"

#include <string>
#include <thread>

#include "agent/base/file.h"
#include "agent/recorder/fatal_fault.h"
#include "agent/recorder/fault_trigger.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/recorder/capture_fixture.h"

namespace metal::recorder {
namespace {

using ::testing::Contains;
using ::testing::Key;

const observe::Fault kFault = {.fault_class = "stalled",
                               .subject = "nvme0n1:data",
                               .severity = observe::Severity::kCritical,
                               .message = "no answer for 5 s",
                               .since = {}};

class DiagnosticsTest : public ::testing::Test, public CaptureFixture {
 protected:
  DiagnosticsOptions Options(int kept, absl::Duration pause) const {
    return {.directory = dir_.File("captures"), .kept = kept, .settle = {}, .pause = pause};
  }
  std::vector<std::string> Captures() const {
    return base::ListDirectory(dir_.File("captures")).value_or(std::vector<std::string>());
  }
  void AwaitCaptures(size_t count) {
    const absl::Time begin = absl::Now();
    while (events_->Count("diagnostics.captured") < count &&
           absl::Now() - begin < absl::Seconds(30)) {
      base::RealClock().Sleep(absl::Milliseconds(2));
    }
    ASSERT_EQ(events_->Count("diagnostics.captured"), count);
  }
};

TEST_F(DiagnosticsTest, AFatalFaultIsCapturedByItselfOnceInAWhile) {
  Diagnostics diagnostics(Parts(), Options(5, absl::Hours(1)));
  for (int i = 0; i < 10; ++i) diagnostics.OnFatalFault(kFault);
  AwaitCaptures(1);
  ASSERT_EQ(Captures().size(), 1u);
  EXPECT_TRUE(Captures()[0].ends_with("-stalled.tar.zst"));
  const std::string path = events_->events().back().attributes.at("path");
  const auto files = FilesOf(*base::ReadFile(path));
  EXPECT_THAT(files, Contains(Key("timeline.html")));
  EXPECT_THAT(files.at("manifest.json"), ::testing::HasSubstr("stalled of nvme0n1:data"));
  diagnostics.OnFatalFault(kFault);
  EXPECT_EQ(Captures().size(), 1u) << "the pause is not over";
}

TEST_F(DiagnosticsTest, AFatalFaultThatIsConfirmedIsOneAndNoOther) {
  Diagnostics diagnostics(Parts(), Options(5, {}));
  FaultTrigger trigger;
  observe::Event event;
  event.type = "disk.fault_confirmed";
  event.subject = "nvme0n1";
  event.attributes = {{"class", "gone"}, {"fatal", "true"}};
  trigger.Saw(event);  // nobody captures yet
  trigger.SetDiagnostics(&diagnostics);
  observe::Event other = event;
  other.attributes["fatal"] = "false";
  trigger.Saw(other);
  other = event;
  other.type = "disk.fault_suspected";
  trigger.Saw(other);
  trigger.Saw(event);
  AwaitCaptures(1);
  trigger.SetDiagnostics(nullptr);
  ASSERT_EQ(Captures().size(), 1u);
  EXPECT_TRUE(Captures()[0].ends_with("-gone.tar.zst"));
}

observe::Event Confirmed(absl::Time time, uint64_t id = 0) {
  observe::Event event;
  event.id = id;
  event.time = time;
  event.type = "disk.fault_confirmed";
  event.subject = "nvme0n1";
  event.attributes = {{"class", "gone"}, {"fatal", "true"}};
  return event;
}
observe::Event Captured(absl::Time time, uint64_t id) {
  observe::Event event;
  event.id = id;
  event.time = time;
  event.type = "diagnostics.captured";
  return event;
}

TEST_F(DiagnosticsTest, AFaultWhoseAgentDiedBeforeItsCaptureIsCapturedAtTheNextStart) {
  events_->Append(Confirmed(absl::Now() - absl::Minutes(2)));
  {
    Diagnostics diagnostics(Parts(), Options(5, absl::Minutes(10)));
    AwaitCaptures(1);
  }
  ASSERT_EQ(Captures().size(), 1u);
  EXPECT_TRUE(Captures()[0].ends_with("-gone.tar.zst"));
  // Not again at the start after that one. One that comes now shows that the start is over.
  observe::Event captured = events_->events().back();
  ASSERT_EQ(captured.type, "diagnostics.captured");
  Diagnostics diagnostics(Parts(), Options(5, {}));
  diagnostics.OnFatalFault(kFault);
  AwaitCaptures(2);
  EXPECT_TRUE(Captures()[1].ends_with("-stalled.tar.zst"));
}

TEST(FatalFaultTest, OnlyTheLastOneOfThePastHourWithoutACaptureIsMissed) {
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  const absl::Duration pause = absl::Minutes(10);
  const auto ago = [&](int minutes) { return now - absl::Minutes(minutes); };
  EXPECT_FALSE(MissedFault({}, now, pause));
  EXPECT_TRUE(MissedFault({Confirmed(ago(59), 1)}, now, pause));
  EXPECT_FALSE(MissedFault({Confirmed(ago(61), 1)}, now, pause));
  EXPECT_FALSE(MissedFault({Confirmed(ago(30), 1), Captured(ago(29), 2)}, now, pause));
  EXPECT_FALSE(MissedFault({Confirmed(ago(30), 2), Captured(ago(35), 1)}, now, pause))
      << "one within the pause is on the record of the capture before it";
  EXPECT_TRUE(MissedFault({Confirmed(ago(30), 2), Captured(ago(45), 1)}, now, pause));
  EXPECT_FALSE(MissedFault({Confirmed(ago(30), 1), Captured(ago(90), 2)}, now, pause))
      << "the clock was set back between them";
  observe::Event harmless = Confirmed(ago(5), 3);
  harmless.attributes["fatal"] = "false";
  EXPECT_FALSE(MissedFault({harmless}, now, pause));
}

TEST_F(DiagnosticsTest, OnlyTheNewestAreKeptAndHalvesAreRemoved) {
  dir_.Write("captures/20200101T000000Z-gone.tar.zst", "old");
  dir_.Write("captures/20200102T000000Z-gone.tar.zst", "old");
  dir_.Write("captures/20200103T000000Z-gone.tar.zst.tmp", "half");
  dir_.Write("captures/notes.txt", "not ours");
  Diagnostics diagnostics(Parts(), Options(2, {}));
  diagnostics.OnFatalFault(kFault);
  AwaitCaptures(1);
  const absl::Time begin = absl::Now();
  while (Captures().size() != 3 && absl::Now() - begin < absl::Seconds(30))
    base::RealClock().Sleep(absl::Milliseconds(2));
  const auto names = Captures();
  ASSERT_EQ(names.size(), 3u);
  EXPECT_EQ(names[0], "20200102T000000Z-gone.tar.zst");
  EXPECT_TRUE(names[1].ends_with("-stalled.tar.zst"));
  EXPECT_EQ(names[2], "notes.txt");
}

TEST_F(DiagnosticsTest, SettingsAreCopiedWhileTheProbesOfTheirDiskComeBackAndShownWhenNot) {
  SetDataProbe("healthy");
  DiagnosticsOptions options = Options(5, {});
  options.settings_interval = options.first_settings = absl::Milliseconds(5);
  Diagnostics diagnostics(Parts(), options);
  const auto capture = [&] {
    std::string archive;
    EXPECT_OK(diagnostics.Capture({}, [&](std::string_view bytes) {
      archive += bytes;
      return absl::OkStatus();
    }));
    return FilesOf(archive);
  };
  const auto shown = [&] {
    const auto files = capture();
    const auto found = files.find("settings/pg_ident.conf");
    return found == files.end() ? std::string() : found->second;
  };
  // Until it is copied: after that the disk stalls, and nobody asks it.
  dir_.Write("data/pg_ident.conf", "# new\n");
  for (int i = 0; i < 1000; ++i) {
    SetDataProbe("healthy");
    base::RealClock().Sleep(absl::Milliseconds(20));
    SetDataProbe("stalled");
    if (shown() == "# new\n") break;
  }
  EXPECT_EQ(shown(), "# new\n");
  base::RealClock().Sleep(absl::Milliseconds(20));  // what was on its way
  dir_.Write("data/pg_ident.conf", "# newer\n");
  base::RealClock().Sleep(absl::Milliseconds(50));
  EXPECT_EQ(shown(), "# new\n");
}

TEST_F(DiagnosticsTest, NoneAreTakenWhenNoneAreKept) {
  Diagnostics diagnostics(Parts(), Options(0, {}));
  diagnostics.OnFatalFault(kFault);
  std::string archive;
  ASSERT_OK(diagnostics.Capture({}, [&](std::string_view bytes) {
    archive += bytes;
    return absl::OkStatus();
  }));
  EXPECT_EQ(Captures().size(), 0u);
  EXPECT_THAT(FilesOf(archive), Contains(Key("README.txt")));
}

TEST_F(DiagnosticsTest, ADirectoryThatCannotBeWrittenIsReported) {
  dir_.Write("captures", "a file");
  Diagnostics diagnostics(Parts(), Options(2, {}));
  diagnostics.OnFatalFault(kFault);
  EXPECT_TRUE(events_->Await("diagnostics.failed"));
}

TEST_F(DiagnosticsTest, OneCaptureRunsAtATime) {
  Diagnostics diagnostics(Parts(), Options(0, {}));
  absl::Status second;
  ASSERT_OK(diagnostics.Capture({}, [&](std::string_view) {
    // The lock is not one's own to try again: another caller asks.
    std::thread other([&] {
      second = diagnostics.Capture({}, [](std::string_view) { return absl::OkStatus(); }).status();
    });
    other.join();
    return absl::OkStatus();
  }));
  EXPECT_TRUE(absl::IsAborted(second));
  EXPECT_EQ(base::GetReason(second)->reason, "CAPTURE_RUNNING");
}

TEST_F(DiagnosticsTest, TheEndComesSoonAlsoInTheMiddleOfACapture) {
  auto parts = Parts();
  const auto hang = std::make_shared<std::atomic<bool>>(true);
  const auto entered = std::make_shared<std::atomic<bool>>(false);
  const auto ended = std::make_shared<std::atomic<bool>>(false);
  parts.kernel_log = [hang, entered, ended]() -> absl::StatusOr<std::string> {
    *entered = true;
    while (*hang) base::RealClock().Sleep(absl::Milliseconds(5));
    *ended = true;
    return std::string();
  };
  auto diagnostics = std::make_unique<Diagnostics>(std::move(parts), Options(2, {}));
  diagnostics->OnFatalFault(kFault);
  while (!*entered) base::RealClock().Sleep(absl::Milliseconds(1));
  const absl::Time asked = absl::Now();
  diagnostics.reset();
  EXPECT_LT(absl::Now() - asked, absl::Seconds(2));
  *hang = false;
  while (!*ended) base::RealClock().Sleep(absl::Milliseconds(1));
}

}  // namespace
}  // namespace metal::recorder
