#include "agent/node/terms/term_store.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "agent/base/fault_point.h"
#include "agent/base/file.h"
#include "agent/base/log.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "agent/node/emit.h"
#include "fmt/format.h"

namespace metal::node {

namespace {

constexpr size_t kFileLimit = 64 << 10;
constexpr absl::Duration kStoreAgain = absl::Seconds(5);

bool Same(const TermRecord& a, const TermRecord& b) {
  return EncodeTermRecord(a) == EncodeTermRecord(b);
}

}  // namespace

TermRecord TermStore::State::Merged() { return unstored ? WithFence(record, *unstored) : record; }

absl::Status TermStore::State::Write(const TermRecord& next, absl::Time now) {
  METAL_RETURN_IF_ERROR(base::FaultPoint("term.before_write"));
  if (unreadable) {
    // The damaged file is evidence, and its being damaged is what keeps a restarted agent fenced:
    // it is copied, not moved, so that there is no moment without either of the two.
    const auto evidence = base::ReadFile(path, kFileLimit);
    if (evidence.ok()) {
      METAL_RETURN_IF_ERROR(base::WriteFileDurably(
          fmt::format("{}.damaged-{}", path, absl::ToUnixSeconds(now)), *evidence));
    }
  }
  METAL_RETURN_IF_ERROR(
      base::Annotate(base::WriteFileDurably(path, EncodeTermRecord(next)), "store the term"));
  unreadable = false;
  METAL_RETURN_IF_ERROR(base::FaultPoint("term.written"));
  base::MutexLock lock(mutex);
  record = next;
  // A write that was under way when the node fenced itself does not have the fence, or not why.
  if (unstored && next.fence.active && next.fence.term >= unstored->fence.term &&
      (next.FencedForDisk() || !unstored->FencedForDisk())) {
    unstored.reset();
  }
  return absl::OkStatus();
}

TermStore::TermStore(TermPlaces places, base::Clock& clock, observe::StatusBoard& board,
                     observe::EventLog& events)
    : memory_path_(std::move(places.memory)),
      clock_(clock),
      board_(board),
      events_(events),
      state_(std::make_shared<State>(std::move(places.path))) {}

std::unique_ptr<TermStore> TermStore::Open(TermPlaces places, base::Clock& clock,
                                           observe::StatusBoard& board, observe::EventLog& events) {
  std::unique_ptr<TermStore> store(new TermStore(std::move(places), clock, board, events));
  store->Load();
  return store;
}

void TermStore::Load() {
  TermRecord record;
  absl::Status problem;
  const auto text = base::ReadFile(path(), kFileLimit);
  if (text.ok()) {
    auto decoded = DecodeTermRecord(*text);
    if (decoded.ok()) {
      record = *std::move(decoded);
    } else {
      problem = decoded.status();
    }
  } else if (!absl::IsNotFound(text.status())) {
    problem = text.status();
  }
  if (!problem.ok()) {
    record.fence = {
        .active = true,
        .reason = fmt::format("term store unreadable: {}", std::string(problem.message())),
        .term = 0,
        .since = clock_.Now()};
    Emit(events_, observe::Severity::kCritical, "term.unreadable", path(),
         fmt::format("{}: {}; the node is fenced. HINT: begin a term above the "
                     "highest one used, then unfence",
                     path(), std::string(problem.message())));
  }
  const bool unstored = LoadMemory(record);
  {
    base::MutexLock write_lock(state_->write_mutex);
    state_->unreadable = !problem.ok();
    base::MutexLock lock(state_->mutex);
    state_->record = record;
    if (unstored) state_->unstored = record;
  }
  Publish(record);
}

bool TermStore::LoadMemory(TermRecord& record) {
  if (memory_path_.empty()) return false;
  const auto text = base::ReadFile(memory_path_, kFileLimit);
  if (absl::IsNotFound(text.status())) return false;
  const auto kept = text.ok() ? DecodeTermRecord(*text) : text.status();
  if (kept.ok() && !kept->fence.active) return false;
  const bool known = record.fence.active;
  if (kept.ok()) {
    record = WithFence(record, *kept);
  } else if (!known) {
    record.fence = {.active = true,
                    .reason = fmt::format("fence unreadable: {}: {}", memory_path_,
                                          std::string(kept.status().message())),
                    .term = record.term,
                    .since = clock_.Now()};
  }
  if (known) return false;
  Emit(events_, observe::Severity::kWarning, "term.fence_found", memory_path_,
       fmt::format("fenced by {}, which the term store does not have: {}", memory_path_,
                   record.fence.reason));
  return true;
}

void TermStore::AttachLease(Lease& lease) {
  lease_ = &lease;
  const TermRecord record = Get();
  // An agent died while it gave the primary a first lease, before that was stored.
  if (record.MayRunAsPrimary() && !record.HasLease()) lease.Disarm();
  PublishLease(record);
}

TermRecord TermStore::Get() const {
  TermRecord record;
  {
    base::MutexLock lock(state_->mutex);
    record = state_->Merged();
  }
  if (record.HasLease() && (lease_ == nullptr || lease_->Over(record.lease.term))) {
    record.lease.expired = true;
  }
  return record;
}

absl::Status TermStore::StoreLocked(TermRecord next) {
  if (Same(Get(), next) && !state_->unreadable && FenceIsStored()) return absl::OkStatus();
  METAL_RETURN_IF_ERROR(state_->Write(next, clock_.Now()));
  Publish(Get());
  return absl::OkStatus();
}

void TermStore::Publish(const TermRecord& record) {
  board_.Update([&](observe::NodeStatus& status) {
    status.node.term = record.term;
    status.node.term_orchestrator = record.orchestrator_id;
    status.node.fenced = record.fence.active;
    status.node.fence_reason = record.fence.reason;
    status.node.fence_term = record.fence.term;
    // An order of an older term is none.
    status.node.role_wanted =
        record.role_term == record.term ? record.role_wanted : observe::Role::kStandby;
  });
  PublishLease(record);
}

void TermStore::PublishLease(const TermRecord& record) {
  const bool expired = record.lease.expired;
  const absl::Duration left =
      lease_ == nullptr || expired ? absl::ZeroDuration() : lease_->Remaining();
  board_.Update([&](observe::NodeStatus& status) {
    observe::LeaseSection& section = status.node.lease;
    section.ttl = record.HasLease() || expired ? record.lease.ttl : absl::ZeroDuration();
    section.term = record.lease.term;
    section.expired = expired;
    section.deadline = clock_.Monotonic() + left;
  });
}

absl::Status TermStore::BeginTerm(const TermHolder& who) {
  base::MutexLock write_lock(state_->write_mutex);
  const TermRecord current = Get();
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyBeginTerm(current, who));
  METAL_RETURN_IF_ERROR(StoreLocked(next));
  if (next.term != current.term) {
    Emit(events_, observe::Severity::kInfo, "term.begun", fmt::format("{}", next.term),
         fmt::format("term {} of {} begun (before: {} of {})", next.term, next.orchestrator_id,
                     current.term,
                     current.orchestrator_id.empty() ? "nobody" : current.orchestrator_id));
  }
  return absl::OkStatus();
}

absl::Status TermStore::CheckHolder(const TermHolder& who) const {
  return node::CheckHolder(Get(), who);
}

absl::Status TermStore::SetRoleWanted(const TermHolder& who, observe::Role role,
                                      const LeaseCall& lease) {
  base::MutexLock write_lock(state_->write_mutex);
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyRoleWanted(Get(), who, role, lease.ttl));
  if (lease.ttl == absl::ZeroDuration()) return StoreLocked(std::move(next));
  METAL_RETURN_IF_ERROR(GrantLease(next, lease.arrived));
  const absl::Status stored = StoreLocked(next);
  if (!stored.ok() && !Get().HasLease()) lease_->Disarm();
  PublishLease(Get());
  return stored;
}

// Before the record is stored: a record with a lease whose page is not armed has run out.
absl::Status TermStore::GrantLease(const TermRecord& next, base::MonotonicTime arrived) {
  if (lease_ == nullptr) return absl::UnimplementedError("leases are not possible here");
  return lease_->Grant(next, arrived);
}

absl::Status TermStore::RenewLease(const TermHolder& who, const LeaseCall& call) {
  const TermRecord current = Get();
  METAL_ASSIGN_OR_RETURN(const TermRecord wanted, ApplyRenewLease(current, who, call.ttl));
  if (Same(current, wanted) && lease_ != nullptr) {
    METAL_RETURN_IF_ERROR(lease_->Renew(wanted, call.arrived));
    PublishLease(current);
    return absl::OkStatus();
  }
  base::MutexLock write_lock(state_->write_mutex);
  const TermRecord before = Get();
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyRenewLease(before, who, call.ttl));
  METAL_RETURN_IF_ERROR(before.HasLease() && lease_ != nullptr ? lease_->Renew(next, call.arrived)
                                                               : GrantLease(next, call.arrived));
  const absl::Status stored = StoreLocked(std::move(next));
  if (!stored.ok() && !before.HasLease()) lease_->Disarm();
  return stored;
}

absl::Status TermStore::ExpireLease() {
  base::MutexLock write_lock(state_->write_mutex);
  return StoreLocked(ApplyLeaseExpired(Get()));
}

absl::Status TermStore::Demote(const TermHolder& who) {
  base::MutexLock write_lock(state_->write_mutex);
  const TermRecord current = Get();
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyDemote(current, who));
  METAL_RETURN_IF_ERROR(StoreLocked(next));
  if (current.MayRunAsPrimary()) {
    Emit(events_, observe::Severity::kInfo, "term.demoted", fmt::format("{}", next.term),
         fmt::format("told to step down by {} in term {}", next.orchestrator_id, next.term));
  }
  return absl::OkStatus();
}

absl::Status TermStore::UndoDemote(const TermHolder& who) {
  base::MutexLock write_lock(state_->write_mutex);
  const TermRecord current = Get();
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyUndoDemote(current, who));
  METAL_RETURN_IF_ERROR(StoreLocked(next));
  if (!current.MayRunAsPrimary()) {
    Emit(events_, observe::Severity::kInfo, "term.demotion_undone", fmt::format("{}", next.term),
         fmt::format("made the primary again by {} in term {}", next.orchestrator_id, next.term));
  }
  return absl::OkStatus();
}

absl::Status TermStore::Follow(const TermHolder& who) {
  base::MutexLock write_lock(state_->write_mutex);
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyFollow(Get(), who));
  return StoreLocked(std::move(next));
}

absl::Status TermStore::CheckNotStale(const TermHolder& who) const {
  return ApplyBeginTerm(Get(), who).status();
}

absl::Status TermStore::DropPrimaryRole() {
  base::MutexLock write_lock(state_->write_mutex);
  TermRecord next = Get();
  if (next.role_wanted == observe::Role::kStandby) return absl::OkStatus();
  next.role_wanted = observe::Role::kStandby;
  if (!next.lease.expired) next.lease = LeaseRecord();
  return StoreLocked(std::move(next));
}

absl::Status TermStore::Fence(const TermHolder& who, const std::string& reason) {
  base::MutexLock write_lock(state_->write_mutex);
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyFence(Get(), who, reason, clock_.Now()));
  METAL_RETURN_IF_ERROR(StoreLocked(next));
  Emit(events_, observe::Severity::kWarning, "term.fenced", fmt::format("{}", next.term),
       fmt::format("fenced by {} in term {}: {}", next.orchestrator_id, next.term,
                   next.fence.reason));
  return absl::OkStatus();
}

absl::Status TermStore::FenceNow(const TermHolder& who, const std::string& reason) {
  TermRecord next;
  {
    base::MutexLock lock(state_->mutex);
    METAL_ASSIGN_OR_RETURN(next, ApplyFence(state_->Merged(), who, reason, clock_.Now()));
    state_->unstored = next;
    state_->tried.reset();
  }
  Publish(next);
  if (!memory_path_.empty()) {
    // On tmpfs the rename is all the durability there is.
    const absl::Status written = base::WriteFileDurably(memory_path_, EncodeTermRecord(next));
    if (!written.ok()) {
      Emit(events_, observe::Severity::kError, "term.fence_not_in_memory", memory_path_,
           fmt::format("the fence is not kept for a restart of the agent unless the term store "
                       "takes it: {}",
                       std::string(written.message())));
    }
  }
  KeepFence();
  Emit(events_, observe::Severity::kWarning, "term.fenced", fmt::format("{}", next.term),
       fmt::format("fenced by itself in term {}: {}", next.term, next.fence.reason));
  return absl::OkStatus();
}

void TermStore::KeepFence() {
  const base::MonotonicTime now = clock_.Monotonic();
  {
    base::MutexLock lock(state_->mutex);
    if (!state_->unstored || state_->storing) return;
    if (state_->tried && now - *state_->tried < kStoreAgain) return;
    state_->storing = true;
    state_->tried = now;
  }
  base::Thread writer("term-store", [state = state_, time = clock_.Now()] {
    absl::Status stored;
    {
      base::MutexLock write_lock(state->write_mutex);
      TermRecord next;
      {
        base::MutexLock lock(state->mutex);
        next = state->Merged();
      }
      if (next.fence.active) stored = state->Write(next, time);
    }
    if (!stored.ok()) base::LogWarning("event=fence_not_stored message=\"{}\"", stored.ToString());
    base::MutexLock lock(state->mutex);
    state->storing = false;
  });
  writer.Detach();
}

bool TermStore::FenceIsStored() const {
  base::MutexLock lock(state_->mutex);
  return !state_->unstored.has_value();
}

absl::Status TermStore::Unfence(const TermHolder& who) {
  base::MutexLock write_lock(state_->write_mutex);
  const TermRecord current = Get();
  METAL_ASSIGN_OR_RETURN(TermRecord next, ApplyUnfence(current, who));
  METAL_RETURN_IF_ERROR(StoreLocked(next));
  {
    base::MutexLock lock(state_->mutex);
    state_->unstored.reset();
  }
  Publish(Get());
  if (current.fence.active) {
    Emit(events_, observe::Severity::kInfo, "term.unfenced", fmt::format("{}", next.term),
         fmt::format("unfenced by {} in term {}", next.orchestrator_id, next.term));
  }
  // Last: an agent that dies before this comes up fenced, and is unfenced once more.
  if (!memory_path_.empty() && ::unlink(memory_path_.c_str()) != 0 && errno != ENOENT) {
    return base::ErrnoStatus(errno, "remove", memory_path_ + " of the fence");
  }
  return absl::OkStatus();
}

void TermStore::WarnIfOnSameDevice(const std::string& data_directory, dev_t data_device) {
  const auto shared = [data_device](const std::string& file) {
    struct stat info;
    return ::stat(base::DirectoryOf(file).c_str(), &info) == 0 && info.st_dev == data_device;
  };
  if (shared(path())) {
    Emit(events_, observe::Severity::kWarning, "term.same_device", path(),
         fmt::format("{} is on the same device as {}: a dying data disk takes the "
                     "promised term with it. HINT: set agent.state_dir to another "
                     "device",
                     path(), data_directory));
  }
  if (!memory_path_.empty() && shared(memory_path_)) {
    Emit(events_, observe::Severity::kWarning, "term.fence_same_device", memory_path_,
         fmt::format("{} would be on the same device as {}: a fence because of that disk may wait "
                     "for it, and not be known to an agent that starts again. HINT: set "
                     "agent.socket to a path on tmpfs, as /run is",
                     memory_path_, data_directory));
  }
}

}  // namespace metal::node
