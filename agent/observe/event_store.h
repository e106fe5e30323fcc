// The SQLite file of the event log: schema, batches, listing, trimming. Internal to event_log.cc.
// Tables: event(id, time_us, severity, type, subject, message), event_attribute(event_id, name,
// value), meta(name, value). PRAGMA user_version is the format's version. WAL mode,
// synchronous=FULL: Store is durable. Threading: one thread at a time for each object; List opens
// its own connection and may run beside it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/observe/event_log.h"

struct sqlite3;
struct sqlite3_stmt;

namespace metal::observe {

class EventStore {
 public:
  // Opens or creates. DATA_LOSS: the file is not a sound database (see MoveAside).
  // FAILED_PRECONDITION: written by a newer version. Other codes: the file system.
  static absl::StatusOr<std::unique_ptr<EventStore>> Open(const std::string& path, size_t keep);

  // Renames the database and its companion files to "<path>.corrupt-<time>"; answers that name.
  static absl::StatusOr<std::string> MoveAside(const std::string& path, absl::Time now);

  // Highest id that may have been handed out by an earlier life: new ids start above it.
  uint64_t last_reserved_id() const { return last_reserved_id_; }

  // Stores the events and the reservation in one transaction, then drops what is beyond `keep`.
  absl::Status Store(std::span<const Event> events, uint64_t reserve_through);

  static absl::StatusOr<std::vector<Event>> List(const std::string& path,
                                                 const EventFilter& filter);

 private:
  struct CloseConnection {
    void operator()(sqlite3* connection) const;
  };
  struct FinalizeStatement {
    void operator()(sqlite3_stmt* statement) const;
  };
  using Connection = std::unique_ptr<sqlite3, CloseConnection>;
  using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

  EventStore(std::string path, size_t keep) : path_(std::move(path)), keep_(keep) {}

  static absl::StatusOr<Connection> Connect(const std::string& path, int flags);
  static absl::Status Run(sqlite3* connection, const std::string& path, const char* sql);
  static absl::StatusOr<Statement> Prepare(sqlite3* connection, const std::string& path,
                                           const char* sql);
  static absl::StatusOr<uint64_t> Number(sqlite3* connection, const std::string& path,
                                         const char* sql);
  static absl::Status ReadAttributes(sqlite3* connection, const std::string& path,
                                     std::vector<Event>& events);

  absl::Status SetUp();
  absl::Status Insert(const Event& event);
  absl::Status Trim();

  const std::string path_;
  const size_t keep_;
  Connection connection_;
  Statement insert_event_, insert_attribute_,
      set_reserved_;  // finalized before the connection closes
  uint64_t last_reserved_id_ = 0;
  uint64_t stored_count_ = 0;
};

}  // namespace metal::observe
