// What every role-changing request carries, from the command line. Threading: pure function.
#pragma once

#include "tools/metalctl/commands.h"

namespace metal::ctl {

// With a request id of its own.
inline void SetHeader(const TermOptions& options, v1::TermHeader* header) {
  header->set_term(options.term);
  header->set_orchestrator_id(options.orchestrator);
  header->set_request_id(NewRequestId());
}

}  // namespace metal::ctl
