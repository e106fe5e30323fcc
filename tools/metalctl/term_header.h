// What every role-changing request carries, from the command line. Threading: pure function.
#pragma once

#include "tools/metalctl/commands.h"

namespace metal::ctl {

// With a request id of its own.
inline void SetHeader(uint64_t term, const std::string& orchestrator, v1::TermHeader* header) {
  header->set_term(term);
  header->set_orchestrator_id(orchestrator);
  header->set_request_id(NewRequestId());
}
inline void SetHeader(const TermOptions& options, v1::TermHeader* header) {
  SetHeader(options.term, options.orchestrator, header);
}

}  // namespace metal::ctl
