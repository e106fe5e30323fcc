#include "agent/recorder/capture.h"

#include <atomic>
#include <string>

#include "agent/recorder/recorded_events.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/status_matchers.h"
#include "tests/unit/recorder/capture_fixture.h"

namespace metal::recorder {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

class CaptureTest : public ::testing::Test, public CaptureFixture {
 protected:
  std::map<std::string, std::string> Capture(const CaptureParts& parts,
                                             CaptureRequest request = {}) {
    PatientCalls calls(8);
    std::string archive;
    const auto summary = WriteCapture(parts, calls, request, [&](std::string_view bytes) {
      archive += bytes;
      return absl::OkStatus();
    });
    EXPECT_OK(summary);
    if (summary.ok()) summary_ = *summary;
    return FilesOf(archive);
  }

  CaptureSummary summary_;
};

TEST_F(CaptureTest, EverythingIsInIt) {
  Entry entry(RecordKind::kRpc);
  entry.Add("rpc", "ReplicationService/Promote").Add("code", "OK").Add("duration_us", 1200);
  recorder_->Put(entry.Add("term", 7));
  ASSERT_TRUE(recorder_->Flush(absl::Seconds(30)));
  observe::Emit(*events_, observe::Severity::kInfo, "agent.started", "db-1", "agent began");
  const auto files = Capture(Parts());
  for (const char* name :
       {"README.txt", "timeline.html", "status.json", "records-0001.jsonl", "events.jsonl",
        "histograms.json", "kernel.txt", "postgres.log", "settings/postgresql.conf",
        "settings/pg_hba.conf", "agent.toml", "versions.json", "manifest.json"}) {
    EXPECT_THAT(files, Contains(Key(name)));
  }
  EXPECT_EQ(summary_.files.size(), files.size());
  EXPECT_TRUE(summary_.missing.empty());
  EXPECT_EQ(summary_.records, 1u);
  EXPECT_THAT(files.at("records-0001.jsonl"),
              HasSubstr(R"("kind":"rpc","rpc":"ReplicationService/Promote",)"
                        R"("code":"OK","duration_us":1200,"term":7)"));
  EXPECT_THAT(files.at("events.jsonl"), HasSubstr("agent.started"));
  EXPECT_THAT(files.at("kernel.txt"), HasSubstr("hello"));
  EXPECT_THAT(files.at("agent.toml"), HasSubstr("node_id = \"db-1\""));
}

TEST_F(CaptureTest, NoSecretThatWasPlantedAnywhereIsInIt) {
  config_.replication_password_file = dir_.Write("password", "planted-in-file\n");
  dir_.Write("data/postgresql.auto.conf",
             "primary_conninfo = 'host=a password=''planted-in-conninfo'' user=b'\n");
  dir_.Write("data/pg_hba.conf", "host all all ldap ldapbindpasswd=planted-in-hba\n");
  dir_.Write("postgres.log",
             "ERROR:  syntax error\nSTATEMENT:  CREATE ROLE a PASSWORD 'planted-in-log'\n"
             "LOG: planted-in-file was seen\nHINT: postgres://u:planted-in-url@h/db\n");
  config_.replication_networks = "token=planted-in-agent-toml";
  auto log = std::make_unique<testing::RecordedEvents>();
  RecordedEvents events(std::move(log), recorder_, nullptr);
  for (observe::EventLog* each :
       {static_cast<observe::EventLog*>(&events), static_cast<observe::EventLog*>(events_.get())}) {
    observe::Emit(*each, observe::Severity::kError, "backup.failed", "s3://k:planted-in-subject@h",
                  "secret: planted-in-message",
                  {{"api_token", "planted-in-attribute"},
                   {"text", "password = \"planted-in-value\""},
                   {"kernel_line", "token=planted-in-kernel"}});
  }
  ASSERT_TRUE(recorder_->Flush(absl::Seconds(30)));
  board_.RaiseFault({.fault_class = "stalled",
                     .subject = "x",
                     .message = "password=planted-in-fault",
                     .since = absl::Now()});
  auto parts = Parts();
  parts.kernel_log = [] { return absl::StatusOr<std::string>("[1] <6> passwd=planted-in-kmsg\n"); };
  CaptureRequest request;
  request.reason = "password=planted-in-reason";
  for (const auto& [name, text] : Capture(parts, request))
    EXPECT_THAT(text, Not(HasSubstr("planted-in"))) << name;
}

TEST_F(CaptureTest, WhatCannotBeReadInTimeIsReplacedByAFileThatSaysSo) {
  std::atomic<bool> done = false;
  auto parts = Parts();
  // The thread is left behind, so it shares what it uses.
  const auto hang = std::make_shared<std::atomic<bool>>(true);
  const auto ended = std::make_shared<std::atomic<bool>>(false);
  parts.kernel_log = [hang, ended]() -> absl::StatusOr<std::string> {
    while (*hang) base::RealClock().Sleep(absl::Milliseconds(5));
    *ended = true;
    return std::string("late");
  };
  const auto files = Capture(
      parts, {.reason = "", .window = {}, .stop = nullptr, .patience = absl::Milliseconds(100)});
  done = true;
  *hang = false;
  EXPECT_THAT(files.at("kernel.txt.missing.txt"), HasSubstr("did not answer within 100ms"));
  EXPECT_THAT(files, Contains(Key("settings/postgresql.conf")));
  EXPECT_THAT(files.at("manifest.json"), HasSubstr("kernel.txt"));
  while (!*ended) base::RealClock().Sleep(absl::Milliseconds(1));
}

TEST_F(CaptureTest, SettingsOfADataDiskThatStallsAreThoseOfEarlierAndWithoutSecrets) {
  const absl::Time earlier = absl::FromUnixSeconds(1'800'000'000);
  auto parts = Parts();
  const auto settings = std::make_shared<SettingsCopy>();
  parts.settings = settings;
  dir_.Write("data/postgresql.auto.conf", "work_mem = 5MB\npassword = 'planted-in-copy'\n");
  settings->Keep(ReadSettings(config_.pg_data_dir), earlier);
  dir_.Write("data/postgresql.auto.conf", "work_mem = 7MB\n");
  SetDataProbe("stalled");
  const auto files = Capture(parts);
  EXPECT_THAT(files.at("settings/postgresql.auto.conf"), HasSubstr("work_mem = 5MB"));
  EXPECT_THAT(files.at("settings/postgresql.auto.conf"), Not(HasSubstr("planted-in-copy")));
  EXPECT_THAT(files, Contains(Key("settings/pg_hba.conf")));
  EXPECT_THAT(files.at("settings.missing.txt"), HasSubstr("nvme0n1 is stalled"));
  EXPECT_THAT(files.at("settings.missing.txt"), HasSubstr("as of 2027-01-15T08:00:00"));
}

TEST_F(CaptureTest, OneFileThatCannotBeReadIsTheOneOfEarlier) {
  auto parts = Parts();
  const auto settings = std::make_shared<SettingsCopy>();
  parts.settings = settings;
  settings->Keep(ReadSettings(config_.pg_data_dir), absl::FromUnixSeconds(1'800'000'000));
  dir_.Write("data/pg_hba.conf", std::string(300 << 10, '#'));
  const auto files = Capture(parts);
  EXPECT_EQ(files.at("settings/pg_hba.conf"), "# pg_hba.conf\n");
  EXPECT_THAT(files.at("settings/pg_hba.conf.missing.txt"), HasSubstr("as of 2027-01-15T08:00:00"));
  EXPECT_THAT(files, Not(Contains(Key("settings/pg_ident.conf.missing.txt"))));
}

TEST(SettingsCopyTest, AFailedReadReplacesNothing) {
  SettingsCopy copy;
  const absl::Time first = absl::FromUnixSeconds(1), second = absl::FromUnixSeconds(2);
  EXPECT_TRUE(copy.Get()->empty());
  copy.Keep({{"pg_hba.conf", "a"}, {"metal.conf", absl::NotFoundError("no")}}, first);
  copy.Keep({{"pg_hba.conf", absl::DataLossError("EIO")}, {"metal.conf", "b"}}, second);
  copy.Keep({{"pg_hba.conf", absl::NotFoundError("no")}}, absl::FromUnixSeconds(3));
  const auto kept = copy.Get();
  ASSERT_EQ(kept->size(), 2u);
  EXPECT_EQ(kept->at("pg_hba.conf").text, "a");
  EXPECT_EQ(kept->at("pg_hba.conf").read, first);
  EXPECT_EQ(kept->at("metal.conf").read, second);
}

TEST_F(CaptureTest, AStalledDataDiskIsNotEvenAsked) {
  SetDataProbe("stalled");
  const auto files = Capture(Parts());
  EXPECT_THAT(files.at("settings.missing.txt"), HasSubstr("nvme0n1 is stalled"));
  EXPECT_THAT(files, Not(Contains(Key("settings/postgresql.conf"))));
}

TEST_F(CaptureTest, ARingThatIsNotThereIsSaidAndWhatWaitsIsTaken) {
  recorder_.reset();
  const std::string file = dir_.Write("file", "");
  recorder_ = std::make_shared<Recorder>(
      RecorderOptions{.path = file + "/ring", .size = {base::kMiB}}, base::RealClock());
  const auto files = Capture(Parts());
  EXPECT_THAT(files.at("records.missing.txt"), HasSubstr("Not a directory"));
  EXPECT_THAT(files.at("manifest.json"), HasSubstr("\"records\":0"));
}

TEST_F(CaptureTest, AWindowLeavesOutWhatIsOlder) {
  Entry old(RecordKind::kRpc);
  recorder_->Put(old.Add("rpc", "old"));
  ASSERT_TRUE(recorder_->Flush(absl::Seconds(30)));
  CaptureRequest request;
  request.window = absl::Nanoseconds(1);
  EXPECT_EQ(Capture(Parts(), request).count("records-0001.jsonl"), 0u);
  request.window = absl::Hours(1);
  EXPECT_EQ(Capture(Parts(), request).count("records-0001.jsonl"), 1u);
}

TEST_F(CaptureTest, ASinkThatFailsOrACallerWhoLeavesEndsIt) {
  PatientCalls calls(8);
  const auto failed = WriteCapture(Parts(), calls, {}, [](std::string_view) {
    return absl::ResourceExhaustedError("no space");
  });
  EXPECT_TRUE(absl::IsResourceExhausted(failed.status()));
  CaptureRequest request;
  request.stop = [] { return true; };
  const auto left =
      WriteCapture(Parts(), calls, request, [](std::string_view) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::IsCancelled(left.status()));
}

TEST_F(CaptureTest, ThousandsOfRecordsBecomeSeveralFilesInOrder) {
  for (int i = 0; i < 3000; ++i) {
    Entry entry(RecordKind::kRpc);
    recorder_->Put(entry.Add("number", i).Add("filler", std::string(200, 'x')));
    if (i % 500 == 0) {
      ASSERT_TRUE(recorder_->Flush(absl::Seconds(30)));
    }
  }
  ASSERT_TRUE(recorder_->Flush(absl::Seconds(30)));
  const auto files = Capture(Parts());
  EXPECT_EQ(summary_.records, 3000u);
  const std::string& text = files.at("records-0001.jsonl");
  EXPECT_THAT(text.substr(0, 300), HasSubstr("\"number\":0,"));
  EXPECT_THAT(text.substr(text.size() - 300), HasSubstr("\"number\":2999,"));
}

}  // namespace
}  // namespace metal::recorder
