// What the fault table says, as pages for people: agent/docs/runbooks.
// Threading: pure functions.
#pragma once

#include <string>

#include "agent/disk/faults/fault_table.h"

namespace metal::disk {

// "`probe`, `kernel_log`": who can see it, as the API names them.
std::string WitnessText(const FaultRow& row);
// How a row's fault is confirmed, and how it ends, for people.
std::string ConfirmationText(const FaultRow& row);
std::string EndText(const FaultRow& row);

// agent/docs/runbooks/<class>.md.
std::string RunbookPage(const FaultRow& row);
// agent/docs/runbooks/README.md: all of them.
std::string RunbookIndex();

}  // namespace metal::disk
