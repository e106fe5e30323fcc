#include "agent/pg/metal_schema.h"

#include <algorithm>
#include <charconv>

#include "agent/base/log.h"
#include "agent/base/status.h"
#include "fmt/format.h"

namespace metal::pg {
namespace {

constexpr const char* kMark = "metal-agent: terms and heartbeat of this cluster (1)";

constexpr const char* kLook =
    "SELECT n.oid IS NOT NULL AS present, "
    "coalesce(obj_description(n.oid, 'pg_namespace'), '') AS mark, "
    "to_regclass('metal.term_history') IS NOT NULL AND to_regclass('metal.heartbeat') IS NOT NULL "
    "AS whole, to_regclass('metal.durability') IS NOT NULL AS durability FROM (SELECT) AS one LEFT "
    "JOIN pg_namespace AS n ON n.nspname = 'metal'";

// A term is an unsigned number of 64 bits, which bigint does not hold. The row is updated in place
// (HOT): its key never changes, and the page keeps room.
constexpr const char* kCreate[] = {
    "CREATE SCHEMA IF NOT EXISTS metal",
    "COMMENT ON SCHEMA metal IS 'metal-agent: terms and heartbeat of this cluster (1)'",
    "REVOKE ALL ON SCHEMA metal FROM PUBLIC",
    "GRANT USAGE ON SCHEMA metal TO PUBLIC",
    "CREATE TABLE IF NOT EXISTS metal.term_history (term numeric(20) PRIMARY KEY CHECK (term > 0), "
    "timeline bigint NOT NULL, start_lsn pg_lsn NOT NULL, at timestamptz NOT NULL, "
    "node_id text NOT NULL, orchestrator_id text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS metal.heartbeat (only_row boolean PRIMARY KEY CHECK (only_row), "
    "term numeric(20) NOT NULL, node_id text NOT NULL, at timestamptz NOT NULL, "
    "lsn pg_lsn NOT NULL) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_analyze_threshold = 1000000)",
    "CREATE TABLE IF NOT EXISTS metal.durability (only_row boolean PRIMARY KEY CHECK (only_row), "
    "rules text NOT NULL, cluster_id text NOT NULL, term numeric(20) NOT NULL, "
    "node_id text NOT NULL, at timestamptz NOT NULL)",
    "REVOKE ALL ON metal.term_history, metal.heartbeat, metal.durability FROM PUBLIC",
    "GRANT SELECT ON metal.term_history, metal.heartbeat, metal.durability TO PUBLIC",
};

constexpr const char* kInsertTerm =
    "INSERT INTO metal.term_history SELECT $1::numeric, "
    "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint, "
    "pg_current_wal_lsn(), clock_timestamp(), $2, $3 ON CONFLICT (term) DO NOTHING";

constexpr const char* kRecordDurability =
    "INSERT INTO metal.durability VALUES (true, $1, $2, $3::numeric, $4, clock_timestamp()) "
    "ON CONFLICT (only_row) DO UPDATE SET rules = excluded.rules, "
    "cluster_id = excluded.cluster_id, term = excluded.term, node_id = excluded.node_id, "
    "at = excluded.at";

constexpr const char* kBeat =
    "INSERT INTO metal.heartbeat VALUES (true, $1::numeric, $2, clock_timestamp(), "
    "pg_current_wal_lsn()) ON CONFLICT (only_row) DO UPDATE SET term = excluded.term, "
    "node_id = excluded.node_id, at = excluded.at, lsn = excluded.lsn";

uint64_t TermAt(const SqlResult& result, size_t row) {
  const std::string text = result.Text(row, "term");
  uint64_t term = 0;
  std::from_chars(text.data(), text.data() + text.size(), term);
  return term;
}

absl::Status Run(SqlSession& session, const std::string& sql, absl::Duration timeout) {
  return session.Query(sql, timeout).status();
}

// A database or role may default to read-only; our rows are written all the same.
absl::Status PrepareWrites(SqlSession& session, const char* synchronous_commit,
                           absl::Duration timeout) {
  METAL_RETURN_IF_ERROR(Run(session, "SET default_transaction_read_only = off", timeout));
  return Run(session, fmt::format("SET synchronous_commit = {}", synchronous_commit), timeout);
}

absl::Status Foreign() {
  return base::WithReason(
      base::Error(absl::StatusCode::kFailedPrecondition,
                  "database postgres has a schema metal that is not the agent's: no terms and no "
                  "heartbeat are written. HINT: rename that schema"),
      {"METAL_SCHEMA_FOREIGN", {}});
}

absl::Status CreateAll(SqlSession& session, absl::Duration timeout) {
  METAL_RETURN_IF_ERROR(Run(session, "BEGIN", timeout));
  for (const char* statement : kCreate) {
    const absl::Status done = Run(session, statement, timeout);
    if (done.ok()) continue;
    (void)Run(session, "ROLLBACK", timeout);
    return base::Annotate(done, "create schema metal");
  }
  return base::Annotate(Run(session, "COMMIT", timeout), "create schema metal");
}

}  // namespace

absl::StatusOr<MetalSchema> LookForMetalSchema(SqlSession& session, absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const SqlResult result, session.Query(kLook, timeout));
  if (!result.Bool(0, "present")) return MetalSchema::kAbsent;
  if (result.Text(0, "mark") != kMark) return MetalSchema::kForeign;
  if (!result.Bool(0, "whole")) return MetalSchema::kIncomplete;
  return result.Bool(0, "durability") ? MetalSchema::kOurs : MetalSchema::kOlder;
}

absl::Status EnsureMetalSchema(SqlSession& session, absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const MetalSchema found, LookForMetalSchema(session, timeout));
  if (found == MetalSchema::kOurs) return absl::OkStatus();
  if (found == MetalSchema::kForeign) return Foreign();
  METAL_RETURN_IF_ERROR(PrepareWrites(session, "local", timeout));
  return CreateAll(session, timeout);
}

absl::Status WriteTermHistory(SqlSession& session, const TermOrder& order, absl::Duration timeout) {
  METAL_RETURN_IF_ERROR(PrepareWrites(session, "local", timeout));
  return base::Annotate(
      session
          .Query(kInsertTerm, {fmt::format("{}", order.term), order.node_id, order.orchestrator_id},
                 {timeout, nullptr})
          .status(),
      fmt::format("write term {} into metal.term_history", order.term));
}

absl::StatusOr<TermHistory> QueryTermHistory(SqlSession& session, size_t limit,
                                             absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const MetalSchema found, LookForMetalSchema(session, timeout));
  TermHistory history;
  if (found != MetalSchema::kOurs && found != MetalSchema::kOlder) return history;
  METAL_ASSIGN_OR_RETURN(
      const SqlResult result,
      session.Query(fmt::format("SELECT term, timeline, start_lsn, (extract(epoch FROM at) * "
                                "1000000)::bigint AS at_us, node_id, orchestrator_id "
                                "FROM metal.term_history "
                                "ORDER BY term DESC LIMIT {}",
                                limit),
                    timeout));
  for (size_t row = result.rows.size(); row-- > 0;) {
    observe::TermHistoryEntry entry;
    entry.term = TermAt(result, row);
    entry.timeline = static_cast<base::TimelineId>(result.Int(row, "timeline").value_or(0));
    entry.start_lsn = result.LsnAt(row, "start_lsn");
    entry.time = absl::FromUnixMicros(result.Int(row, "at_us").value_or(0));
    entry.node_id = result.Text(row, "node_id");
    entry.orchestrator_id = result.Text(row, "orchestrator_id");
    history.push_back(std::move(entry));
  }
  return history;
}

absl::Status WriteDurability(SqlSession& session, const DurabilityOwner& owner,
                             const DurabilityRecord& record, absl::Duration timeout) {
  METAL_RETURN_IF_ERROR(PrepareWrites(session, "local", timeout));
  return base::Annotate(session
                            .Query(kRecordDurability,
                                   {EncodeDurability(record), owner.cluster_id,
                                    fmt::format("{}", owner.term), owner.node_id},
                                   {timeout, nullptr})
                            .status(),
                        "write metal.durability");
}

absl::StatusOr<DurabilityRecord> QueryDurability(SqlSession& session, std::string_view cluster_id,
                                                 absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const MetalSchema found, LookForMetalSchema(session, timeout));
  if (found != MetalSchema::kOurs) return DurabilityRecord();
  return ReadDurability(session, cluster_id, timeout);
}

absl::StatusOr<DurabilityRecord> ReadDurability(SqlSession& session, std::string_view cluster_id,
                                                absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(const SqlResult result,
                         session.Query("SELECT rules, cluster_id FROM metal.durability", timeout));
  if (result.rows.empty() || result.Text(0, "cluster_id") != cluster_id) return DurabilityRecord();
  auto record = DecodeDurability(result.Text(0, "rules"));
  if (record.ok()) return record;
  base::LogWarning("event=durability_record message=\"{}\"",
                   std::string(record.status().message()));
  return DurabilityRecord();
}

absl::Status PrepareHeartbeats(SqlSession& session, absl::Duration timeout) {
  return PrepareWrites(session, "off", timeout);
}

absl::Status WriteHeartbeat(SqlSession& session, const TermOrder& order, absl::Duration timeout) {
  return base::Annotate(
      session.Query(kBeat, {fmt::format("{}", order.term), order.node_id}, {timeout, nullptr})
          .status(),
      "write metal.heartbeat");
}

absl::StatusOr<std::optional<observe::Heartbeat>> QueryHeartbeat(SqlSession& session,
                                                                 absl::Duration timeout) {
  METAL_ASSIGN_OR_RETURN(
      const SqlResult result,
      session.Query("SELECT term, node_id, extract(epoch FROM at) AS at, lsn FROM metal.heartbeat",
                    timeout));
  if (result.rows.empty()) return std::optional<observe::Heartbeat>();
  observe::Heartbeat beat;
  beat.term = TermAt(result, 0);
  beat.node_id = result.Text(0, "node_id");
  beat.time = result.Time(0, "at");
  beat.lsn = result.LsnAt(0, "lsn");
  return std::optional<observe::Heartbeat>(std::move(beat));
}

}  // namespace metal::pg
