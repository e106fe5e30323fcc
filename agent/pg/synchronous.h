// Who has to acknowledge a commit: synchronous_standby_names as a value.
// Source: PostgreSQL, "synchronous_standby_names"; src/backend/replication/syncrep_gram.y.
// Threading: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace metal::pg {

struct SynchronousPolicy {
  bool any = true;  // ANY count of names; false: FIRST count, in the order of names
  int count = 0;    // 0: nobody has to
  std::vector<std::string> names;
  friend bool operator==(const SynchronousPolicy&, const SynchronousPolicy&) = default;
};

// INVALID_ARGUMENT: more to be asked than there are names, a name twice, an empty one, or "*",
// which lets any follower acknowledge.
absl::Status CheckPolicy(const SynchronousPolicy& policy);

// `ANY 1 ("node-b", "node-c")`; empty for count 0.
std::string RenderPolicy(const SynchronousPolicy& policy);
// Every form that PostgreSQL takes: also `a, b` and `2 (a, b)` (FIRST), names with and without
// quotes. INVALID_ARGUMENT otherwise.
absl::StatusOr<SynchronousPolicy> ParsePolicy(std::string_view text);

// A policy under which every acknowledged commit is acknowledged under `before` and under `after`
// too; nullopt when one of the two is that already (the stronger one comes first, then nothing lies
// between), or when one asks for nobody. A change goes through it, so that at no moment a commit
// counts as durable for neither the one who reads the old policy nor the one who reads the new.
std::optional<SynchronousPolicy> Between(const SynchronousPolicy& before,
                                         const SynchronousPolicy& after);

// True when every set of standbys that satisfies `stronger` satisfies `weaker`.
bool Implies(const SynchronousPolicy& stronger, const SynchronousPolicy& weaker);

}  // namespace metal::pg
