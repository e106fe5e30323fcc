#include <filesystem>
#include <regex>

#include "absl/strings/ascii.h"
#include "agent/base/file.h"
#include "agent/disk/faults/fault_table.h"
#include "agent/rpc/convert_status.h"
#include "gmock/gmock.h"
#include "tests/harness/status_matchers.h"

namespace metal::rpc {
namespace {

using disk::FaultTable;

v1::DiskFaultClass ClassOf(std::string_view name) {
  v1::DiskFaultClass value = v1::DISK_FAULT_CLASS_UNSPECIFIED;
  v1::DiskFaultClass_Parse("DISK_FAULT_CLASS_" + absl::AsciiStrToUpper(std::string(name)), &value);
  return value;
}

// The comment above each value of an enum in a proto file, on one line.
std::map<std::string, std::string> CommentsOf(const std::string& text) {
  std::map<std::string, std::string> comments;
  std::string comment;
  std::istringstream lines(text);
  const std::regex value("^ +([A-Z_]+) = [0-9]+;$");
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    const size_t at = line.find("// ");
    if (at != std::string::npos && at == line.find_first_not_of(' ')) {
      comment += (comment.empty() ? "" : " ") + line.substr(at + 3);
      continue;
    }
    if (std::regex_match(line, match, value)) comments[match[1]] = comment;
    comment.clear();
  }
  return comments;
}

TEST(ConvertFaultTest, TheApiHasEachClassWithItsMeaning) {
  const std::filesystem::path root = std::filesystem::path(__FILE__).parent_path() / "../../..";
  ASSERT_OK_AND_ASSIGN(const std::string text,
                       base::ReadFile(root / "proto/metal/agent/v1/disk.proto"));
  const auto comments = CommentsOf(text);
  EXPECT_EQ(v1::DiskFaultClass_descriptor()->value_count(), FaultTable().size() + 1);
  for (const disk::FaultRow& row : FaultTable()) {
    const v1::DiskFaultClass value = ClassOf(disk::FaultClassName(row.fault_class));
    ASSERT_NE(value, v1::DISK_FAULT_CLASS_UNSPECIFIED) << disk::FaultClassName(row.fault_class);
    const auto comment = comments.find(v1::DiskFaultClass_Name(value));
    ASSERT_NE(comment, comments.end());
    EXPECT_EQ(comment->second, row.meaning);
  }
}

TEST(ConvertFaultTest, AFaultOfADiskCarriesItsEvidence) {
  observe::DiskFaultDetail detail;
  detail.device = "nvme0n1";
  detail.serial = "S1";
  detail.roles = {"data", "wal"};
  detail.confirmed = detail.fatal = true;
  detail.reaction = "demote";
  detail.last_seen = absl::FromUnixSeconds(20);
  detail.actions = {"status asks for a failover"};
  observe::FaultEvidence evidence;
  evidence.witness = "kernel_log";
  evidence.text = "write failed";
  evidence.kernel_line = "critical medium error, dev nvme0n1, sector 8 op 0x1:(WRITE)";
  evidence.error_number = 61;
  evidence.nvme_status_type = 2;
  evidence.nvme_status_code = 0x80;
  evidence.sector = 8;
  observe::FaultEvidence probe;
  probe.witness = "probe";
  probe.probe_outcome = "unanswered";
  probe.outstanding = absl::Milliseconds(3500);
  detail.evidence = {evidence, probe};
  detail.acknowledged = {"unix", "known", absl::FromUnixSeconds(30)};
  observe::Fault fault;
  fault.fault_class = "write_error";
  fault.subject = "nvme0n1";
  fault.since = absl::FromUnixSeconds(10);
  fault.disk = std::make_shared<const observe::DiskFaultDetail>(detail);
  v1::Fault out;
  ToProto(fault, &out);
  EXPECT_EQ(out.since_time().seconds(), 10);
  EXPECT_EQ(out.disk().disk_fault_class(), v1::DISK_FAULT_CLASS_WRITE_ERROR);
  EXPECT_EQ(out.disk().confidence(), v1::FAULT_CONFIDENCE_CONFIRMED);
  EXPECT_EQ(out.disk().reaction(), v1::FAULT_REACTION_DEMOTE);
  EXPECT_TRUE(out.disk().fatal());
  EXPECT_THAT(out.disk().roles(), ::testing::ElementsAre("data", "wal"));
  EXPECT_EQ(out.disk().last_seen_time().seconds(), 20);
  EXPECT_EQ(out.disk().actions_size(), 1);
  ASSERT_EQ(out.disk().evidence_size(), 2);
  const v1::FaultEvidence& seen = out.disk().evidence(0);
  EXPECT_EQ(seen.witness(), v1::FAULT_WITNESS_KERNEL_LOG);
  EXPECT_EQ(seen.kernel_line(), evidence.kernel_line);
  EXPECT_EQ(seen.error_number(), 61);
  EXPECT_EQ(seen.nvme_status_code(), 0x80);
  EXPECT_EQ(seen.sector(), 8);
  EXPECT_FALSE(seen.has_delta());
  EXPECT_EQ(seen.probe_outcome(), v1::PROBE_OUTCOME_UNSPECIFIED);
  EXPECT_FALSE(seen.has_outstanding());
  EXPECT_EQ(out.disk().evidence(1).probe_outcome(), v1::PROBE_OUTCOME_UNANSWERED);
  EXPECT_EQ(out.disk().evidence(1).outstanding().seconds(), 3);
  EXPECT_EQ(out.disk().acknowledgement().caller(), "unix");
  EXPECT_EQ(out.disk().acknowledgement().reason(), "known");
  EXPECT_EQ(out.disk().acknowledgement().time().seconds(), 30);
}

TEST(ConvertFaultTest, EveryWitnessIsKnownToTheApi) {
  for (size_t i = 0; i < disk::kWitnesses; ++i) {
    v1::FaultWitness value = v1::FAULT_WITNESS_UNSPECIFIED;
    EXPECT_TRUE(v1::FaultWitness_Parse(
        "FAULT_WITNESS_" +
            absl::AsciiStrToUpper(std::string(disk::WitnessName(static_cast<disk::Witness>(i)))),
        &value));
  }
}

TEST(ConvertFaultTest, EveryResultOfAProbeIsKnownToTheApi) {
  for (size_t i = 0; i < disk::kProbeResults; ++i) {
    v1::ProbeOutcome value = v1::PROBE_OUTCOME_UNSPECIFIED;
    EXPECT_TRUE(v1::ProbeOutcome_Parse(
        "PROBE_OUTCOME_" + absl::AsciiStrToUpper(std::string(
                               disk::ProbeResultName(static_cast<disk::ProbeResult>(i)))),
        &value));
  }
}

TEST(ConvertFaultTest, AFaultOfAnotherKindHasNoDisk) {
  observe::Fault fault;
  fault.fault_class = "gate_down";
  v1::Fault out;
  ToProto(fault, &out);
  EXPECT_FALSE(out.has_disk());
}

}  // namespace
}  // namespace metal::rpc
