// What a confirmed fault asks for: the fault table's wish, as the configuration changes it.
// Threading: plain values and pure functions.
#pragma once

#include <map>
#include <string>

#include "agent/disk/faults/fault_book.h"
#include "agent/disk/faults/fault_table.h"

namespace metal::disk {

struct ReactionPolicy {
  Reaction strongest = Reaction::kDemote;     // of classes that are not named
  std::map<FaultClass, Reaction> by_class{};  // these, whatever `strongest` is

  // No class is demoted on the word of one source whose row does not let it: until a second one
  // agrees, such a fault asks for a drain.
  Reaction For(const DiskFault& fault) const;
};

// config disk.reaction and [disk.reactions]; names that are none are left out.
ReactionPolicy MakeReactionPolicy(const std::string& strongest,
                                  const std::map<std::string, std::string>& by_class);

}  // namespace metal::disk
