#include "agent/pg/replication_role.h"

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "agent/pg/scram.h"

namespace metal::pg {
namespace {

constexpr absl::Duration kQuery = absl::Seconds(10);

// Source: pg_rewind's documentation, "The functions that pg_rewind calls on the source".
constexpr const char* kRewindFunctions[] = {
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
};

std::string Quoted(std::string_view text, char quote) {
  std::string quoted(1, quote);
  for (const char c : text) {
    if (c == quote) quoted += quote;
    quoted += c;
  }
  return quoted + quote;
}

std::string EscapePassfield(std::string_view field) {
  std::string escaped;
  for (const char c : field) {
    if (c == ':' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

}  // namespace

absl::StatusOr<std::string> ReadPasswordFile(const std::string& path) {
  METAL_ASSIGN_OR_RETURN(const std::string text, base::ReadFile(path));
  const std::string password = text.substr(0, text.find_first_of("\r\n"));
  if (password.empty()) {
    return base::Error(absl::StatusCode::kInvalidArgument, "{}: no password on its first line",
                       path);
  }
  return password;
}

absl::StatusOr<bool> HasReplicationRole(SqlSession& session, const std::string& role) {
  METAL_ASSIGN_OR_RETURN(
      const SqlResult found,
      session.Query("SELECT 1 FROM pg_roles WHERE rolname = $1 AND rolcanlogin AND rolreplication",
                    {role}, {kQuery, nullptr}));
  return !found.rows.empty();
}

absl::Status EnsureReplicationRole(SqlSession& session, const std::string& role,
                                   const std::string& password) {
  METAL_ASSIGN_OR_RETURN(const std::string verifier, ScramVerifier(password));
  METAL_RETURN_IF_ERROR(session.Query("SET synchronous_commit = local", kQuery).status());
  METAL_ASSIGN_OR_RETURN(
      const SqlResult found,
      session.Query("SELECT rolsuper FROM pg_roles WHERE rolname = $1", {role}, {kQuery, nullptr}));
  const std::string name = Quoted(role, '"');
  if (found.rows.empty()) {
    METAL_RETURN_IF_ERROR(session.Query(fmt::format("CREATE ROLE {}", name), kQuery).status());
  } else if (found.Bool(0, "rolsuper")) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "role \"{}\" is a superuser. HINT: give replication.user another name",
                       role);
  }
  METAL_RETURN_IF_ERROR(session
                            .Query(fmt::format("ALTER ROLE {} LOGIN REPLICATION PASSWORD {}", name,
                                               Quoted(verifier, '\'')),
                                   kQuery)
                            .status());
  for (const char* function : kRewindFunctions) {
    METAL_RETURN_IF_ERROR(
        session.Query(fmt::format("GRANT EXECUTE ON FUNCTION {} TO {}", function, name), kQuery)
            .status());
  }
  return absl::OkStatus();
}

absl::Status WritePassfile(const std::string& path, const std::string& role,
                           const std::string& password) {
  const std::string text =
      fmt::format("*:*:*:{}:{}\n", EscapePassfield(role), EscapePassfield(password));
  const auto present = base::ReadFile(path);
  if (present.ok() && *present == text) return absl::OkStatus();
  return base::WriteFileDurably(path, text, 0600);
}

}  // namespace metal::pg
