// A fault for people: what it is, who saw what, and what was done.
#include <cctype>
#include <cstring>

#include "fmt/format.h"
#include "tools/metalctl/commands.h"
#include "tools/metalctl/format.h"

namespace metal::ctl {
namespace {

// "FAULT_WITNESS_KERNEL_LOG" → "kernel log".
std::string WitnessWord(v1::FaultWitness witness) {
  std::string word = v1::FaultWitness_Name(witness);
  constexpr std::string_view kPrefix = "FAULT_WITNESS_";
  if (word.starts_with(kPrefix)) word.erase(0, kPrefix.size());
  for (char& c : word) c = c == '_' ? ' ' : static_cast<char>(std::tolower(c));
  return word;
}

std::string EvidenceText(const v1::FaultEvidence& evidence) {
  std::string text = fmt::format("  {}: {}", WitnessWord(evidence.witness()), evidence.text());
  if (evidence.has_sector()) text += fmt::format(", sector {}", evidence.sector());
  if (evidence.has_error_number()) {
    text += fmt::format(", errno {} ({})", evidence.error_number(),
                        std::strerror(evidence.error_number()));
  }
  if (evidence.has_nvme_status_type()) {
    text += fmt::format(", NVMe status {:x}h/{:02x}h", evidence.nvme_status_type(),
                        evidence.nvme_status_code());
  }
  text += "\n";
  if (!evidence.kernel_line().empty()) {
    text += fmt::format("    kernel: {}\n", evidence.kernel_line());
  }
  return text;
}

// What the node asks for because of it, as the configuration of the class has it.
std::string WishText(const v1::DiskFault& fault) {
  const char* const when =
      fault.confidence() == v1::FAULT_CONFIDENCE_CONFIRMED ? "" : ", once it is confirmed";
  switch (fault.reaction()) {
    case v1::FAULT_REACTION_DRAIN:
      return fmt::format("  asks for: drain (a planned move of the lead){}\n", when);
    case v1::FAULT_REACTION_DEMOTE:
      return fmt::format("  asks for: demote (a failover{}){}\n",
                         fault.fatal() ? "; a primary fences itself" : "", when);
    case v1::FAULT_REACTION_OBSERVE:
      return "  asks for: nothing (observe)\n";
    default:
      return "";
  }
}

}  // namespace

std::string FaultText(const v1::Fault& fault) {
  std::string text =
      fmt::format("FAULT {} {}: {}\n", fault.fault_class(), fault.subject(), fault.message());
  for (const auto& evidence : fault.disk().evidence()) text += EvidenceText(evidence);
  text += WishText(fault.disk());
  for (const std::string& action : fault.disk().actions()) {
    text += fmt::format("  done: {}\n", action);
  }
  if (fault.disk().has_acknowledgement()) {
    const v1::FaultAcknowledgement& known = fault.disk().acknowledgement();
    text += fmt::format("  acknowledged by {}, {}{}\n", known.caller(), FormatTime(known.time()),
                        known.reason().empty() ? "" : ": " + known.reason());
  }
  return text;
}

}  // namespace metal::ctl
