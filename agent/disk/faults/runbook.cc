#include "agent/disk/faults/runbook.h"

#include <set>
#include <vector>

#include "fmt/format.h"
#include "fmt/ranges.h"

namespace metal::disk {
namespace {

using observe::Severity;

std::string Span(absl::Duration duration) { return absl::FormatDuration(duration); }

std::string_view SeverityName(Severity severity) {
  constexpr std::string_view kNames[] = {"info", "warning", "error", "critical"};
  return kNames[static_cast<size_t>(severity)];
}

}  // namespace

std::string WitnessText(const FaultRow& row) {
  std::vector<std::string> names;
  for (size_t i = 0; i < kWitnesses; ++i) {
    const auto witness = static_cast<Witness>(i);
    if (row.seen_by.contains(witness)) names.push_back(fmt::format("`{}`", WitnessName(witness)));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string ConfirmationText(const FaultRow& row) {
  std::set<EvidenceSource> sources;
  for (size_t i = 0; i < kWitnesses; ++i) {
    const auto witness = static_cast<Witness>(i);
    if (row.seen_by.contains(witness)) sources.insert(SourceOf(witness));
  }
  std::string text;
  if (row.witnesses == 1) {
    text = "One witness is enough";
  } else if (static_cast<int>(sources.size()) >= row.witnesses) {
    text = fmt::format(
        "Witnesses of {} different sources (our probes, the kernel, the drive, PostgreSQL, the "
        "peers) have to agree",
        row.witnesses);
  }
  if (row.sightings > 0) {
    text += fmt::format("{} has to see it {} times within {}",
                        text.empty() ? "The only witness" : ", or one", row.sightings,
                        Span(row.within));
    if (row.apart > absl::ZeroDuration()) {
      text += fmt::format(" (what is told twice within {} is one)", Span(row.apart));
    }
  }
  return text + ".";
}

std::string EndText(const FaultRow& row) {
  std::string text = row.ends_at_once ? "As soon as one witness sees that it has passed"
                                      : "When every witness of a state has seen that it has passed";
  text += row.quiet == absl::InfiniteDuration()
              ? ""
              : fmt::format(
                    "; logs, errors of probes and growth of counters count for {} after the "
                    "last",
                    Span(row.quiet));
  return text + ". A drive that is not in use any more takes its faults with it.";
}

std::string RunbookPage(const FaultRow& row) {
  const auto does = [&]() -> std::string {
    switch (row.reaction) {
      case Reaction::kObserve:
        if (!row.did.empty()) return fmt::format("It tells: status, event, journal. {}", row.did);
        return "It tells: status, event, journal. Nothing else is changed.";
      case Reaction::kDrain:
        return "It tells, and asks the orchestrator to move the role away in good order (status "
               "and event). It goes on serving meanwhile.";
      case Reaction::kDemote:
        return "It tells, and asks the orchestrator for a failover (status and event). A primary "
               "that the configuration lets do so fences itself first: it refuses clients on "
               "PostgreSQL's port and ends PostgreSQL, and stays down when the disk comes back. "
               "The fault's actions say what was done, and what was not and why; "
               "`metalctl unfence` "
               "takes the fence back.";
    }
    return "";
  };
  return fmt::format(
      "# {}: {}\n\n{}\n\n| | |\n|---|---|\n| Severity | {}{} |\n| Shown in | {} |\n| Witnesses | "
      "{} |\n| Confirmed | "
      "{} "
      "|\n| Ends | {} |\n| Reaction | {} (`disk.reaction` and `[disk.reactions]` in "
      "the configuration) |\n\n"
      "## What looks like it\n\n{}\n\n## What the agent did\n\n{}\n\n## What to do\n\n{}\n",
      FaultClassName(row.fault_class), row.title, row.meaning, SeverityName(row.severity),
      row.fatal ? ", fatal: the disk no longer keeps what it is given" : "", row.evidence,
      WitnessText(row), ConfirmationText(row), EndText(row), ReactionName(row.reaction), row.guard,
      does(), row.hint);
}

std::string RunbookIndex() {
  std::string text =
      "# Faults of disks\n\nOne page for each class, made from the fault table "
      "(`agent/disk/faults/fault_table.cc`).\n\n| class | what | severity | reaction |\n"
      "|---|---|---|---|\n";
  for (const FaultRow& row : FaultTable()) {
    text += fmt::format("| [{0}]({0}.md) | {1} | {2} | {3} |\n", FaultClassName(row.fault_class),
                        row.title, SeverityName(row.severity), ReactionName(row.reaction));
  }
  return text;
}

}  // namespace metal::disk
