// The fault table: one row for each class of fault of a local drive. The classifier (fault_book.h),
// the classes' documentation in the API and the runbook pages are made from it.
// Threading: constant data and pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/time/time.h"
#include "agent/disk/faults/evidence.h"
#include "agent/observe/event_log.h"

namespace metal::disk {

// What the agent does about a confirmed fault, unless the configuration says otherwise.
enum class Reaction : uint8_t {
  kObserve,  // tells
  kDrain,    // asks the orchestrator to move the role away in good order
  kDemote    // asks for a failover, and takes the node out of service at once
};
std::string_view ReactionName(Reaction reaction);  // "observe", "drain", "demote"
Reaction ParseReaction(std::string_view name);     // another name: kObserve

struct FaultRow {
  FaultClass fault_class;
  std::string_view title;      // "Media error"
  observe::Severity severity;  // of a confirmed one; else a warning, or an error of a fatal one
  // The disk no longer keeps or gives what PostgreSQL entrusts to it.
  bool fatal = false;
  // Of one file system and not of the whole drive: a fault for each role.
  bool of_filesystem = false;

  // Who can see it. What another one says is a suspicion, however often it is said.
  WitnessSet seen_by;
  // Confirmed by witnesses of this many different sources; or, where `sightings` is not 0, by one
  // that has seen it as often within `within`.
  int witnesses = 1;
  int sightings = 0;
  absl::Duration within = absl::ZeroDuration();
  // Sightings closer to each other than this are one: an event that is told in several ways.
  absl::Duration apart = absl::ZeroDuration();

  // How it ends: what tells of single events (a log, a counter's growth) counts for `quiet` after
  // the last; what tells of a state says itself when it has passed.
  absl::Duration quiet = absl::InfiniteDuration();
  // One witness that sees its end outweighs all others.
  bool ends_at_once = false;

  Reaction reaction = Reaction::kObserve;
  std::string_view meaning;   // what it is, and what it does to the database
  std::string_view evidence;  // where it shows
  std::string_view guard;     // what looks like it and is not
  std::string_view did = {};  // what the agent does of itself, whatever the reaction; may be empty
  std::string_view hint;      // what to do, for the operator
};

// In the order of FaultClass.
std::span<const FaultRow> FaultTable();
const FaultRow& RowOf(FaultClass fault_class);

}  // namespace metal::disk
