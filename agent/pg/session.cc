#include "agent/pg/session.h"

#include <charconv>

#include "agent/base/status.h"

namespace metal::pg {
namespace {

template <typename T>
std::optional<T> Parse(const SqlValue& value) {
  if (!value) return std::nullopt;
  T number{};
  const char* const end = value->data() + value->size();
  const auto [next, error] = std::from_chars(value->data(), end, number);
  if (error != std::errc() || next != end || value->empty()) return std::nullopt;
  return number;
}

}  // namespace

const SqlValue& SqlResult::Get(size_t row, std::string_view name) const {
  static const SqlValue kNull;
  if (row >= rows.size()) return kNull;
  for (size_t column = 0; column < columns.size() && column < rows[row].size(); ++column) {
    if (columns[column] == name) return rows[row][column];
  }
  return kNull;
}

std::string SqlResult::Text(size_t row, std::string_view name) const {
  return Get(row, name).value_or("");
}

std::optional<int64_t> SqlResult::Int(size_t row, std::string_view name) const {
  return Parse<int64_t>(Get(row, name));
}

std::optional<double> SqlResult::Double(size_t row, std::string_view name) const {
  return Parse<double>(Get(row, name));
}

bool SqlResult::Bool(size_t row, std::string_view name) const { return Get(row, name) == "t"; }

base::Lsn SqlResult::LsnAt(size_t row, std::string_view name) const {
  const SqlValue& value = Get(row, name);
  return value ? base::Lsn::Parse(*value).value_or(base::Lsn{}) : base::Lsn{};
}

absl::Time SqlResult::Time(size_t row, std::string_view name) const {
  const std::optional<double> seconds = Double(row, name);
  return seconds ? absl::UnixEpoch() + absl::Seconds(*seconds) : absl::InfinitePast();
}

absl::StatusCode SqlStateCode(std::string_view sqlstate) {
  using absl::StatusCode;
  struct Row {
    std::string_view prefix;
    StatusCode code;
  };
  // The first match decides.
  constexpr Row kRows[] = {
      {"57P03", StatusCode::kUnavailable},         // cannot_connect_now: starting up, shutting down
      {"57P01", StatusCode::kUnavailable},         // admin_shutdown
      {"57P02", StatusCode::kUnavailable},         // crash_shutdown
      {"57014", StatusCode::kCancelled},           // query_canceled
      {"08", StatusCode::kUnavailable},            // connection exceptions
      {"53300", StatusCode::kUnavailable},         // too_many_connections
      {"53100", StatusCode::kResourceExhausted},   // disk_full
      {"53", StatusCode::kResourceExhausted},      // insufficient resources
      {"42501", StatusCode::kPermissionDenied},    // insufficient_privilege
      {"28", StatusCode::kPermissionDenied},       // invalid authorization
      {"42704", StatusCode::kNotFound},            // undefined_object
      {"42", StatusCode::kInvalidArgument},        // syntax or access rule
      {"22", StatusCode::kInvalidArgument},        // data exceptions
      {"25006", StatusCode::kFailedPrecondition},  // read only
      {"55", StatusCode::kFailedPrecondition},     // object not in prerequisite state
      {"3D000", StatusCode::kNotFound},            // database does not exist
      {"58030", StatusCode::kDataLoss},            // io_error
      {"XX001", StatusCode::kDataLoss},            // data_corrupted
      {"XX002", StatusCode::kDataLoss},            // index_corrupted
  };
  for (const Row& row : kRows) {
    if (sqlstate.starts_with(row.prefix)) return row.code;
  }
  return StatusCode::kInternal;
}

}  // namespace metal::pg
