#include "agent/backup/manifest.h"

#include <functional>
#include <unordered_map>

#include "agent/backup/sha256.h"
#include "agent/backup/tablespace_list.h"
#include "agent/backup/text_fields.h"
#include "agent/base/status.h"

namespace metal::backup {
namespace {

constexpr std::string_view kFormat = "1";

std::string_view VerdictName(ChecksumVerdict verdict) {
  switch (verdict) {
    case ChecksumVerdict::kClean:
      return "clean";
    case ChecksumVerdict::kSuspect:
      return "suspect";
    case ChecksumVerdict::kUnchecked:
      return "unchecked";
  }
  return "unchecked";
}

bool ParseVerdict(std::string_view text, ChecksumVerdict& verdict) {
  for (const auto candidate :
       {ChecksumVerdict::kClean, ChecksumVerdict::kSuspect, ChecksumVerdict::kUnchecked}) {
    if (text == VerdictName(candidate)) {
      verdict = candidate;
      return true;
    }
  }
  return false;
}

// One key of the manifest: how it is written and how it is read. A key may repeat when it writes
// several lines.
struct Field {
  std::string_view key;
  size_t values;  // fields after the key
  bool required;
  std::function<void(const BackupHeader&, std::vector<std::string>& lines)> write;
  std::function<bool(BackupHeader&, std::span<const std::string_view> values)> read;
};

using Values = std::span<const std::string_view>;

template <typename Number>
Field NumberField(std::string_view key, Number BackupHeader::*member, bool required = true) {
  return {key, 1, required,
          [member](const BackupHeader& h, std::vector<std::string>& lines) {
            lines.push_back(fmt::format("{}", h.*member));
          },
          [member](BackupHeader& h, Values v) { return ParseField(v[0], h.*member); }};
}

Field TextField(std::string_view key, std::string BackupHeader::*member) {
  return {key, 1, true,
          [member](const BackupHeader& h, std::vector<std::string>& lines) {
            lines.push_back(EscapeField(h.*member));
          },
          [member](BackupHeader& h, Values v) {
            auto text = UnescapeField(v[0]);
            if (text) h.*member = std::move(*text);
            return text.has_value();
          }};
}

Field LsnField(std::string_view key, base::Lsn BackupHeader::*member) {
  return {key, 1, true,
          [member](const BackupHeader& h, std::vector<std::string>& lines) {
            lines.push_back((h.*member).ToString());
          },
          [member](BackupHeader& h, Values v) {
            const auto lsn = base::Lsn::Parse(v[0]);
            if (lsn) h.*member = *lsn;
            return lsn.has_value();
          }};
}

Field TimeField(std::string_view key, absl::Time BackupHeader::*member) {
  return {key, 1, true,
          [member](const BackupHeader& h, std::vector<std::string>& lines) {
            lines.push_back(FormatTimeField(h.*member));
          },
          [member](BackupHeader& h, Values v) {
            const auto time = ParseTimeField(v[0]);
            if (time) h.*member = *time;
            return time.has_value();
          }};
}

Field SourceField() {
  return {"source", 1, true,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            lines.push_back(h.from_standby ? "standby" : "primary");
          },
          [](BackupHeader& h, Values v) {
            h.from_standby = v[0] == "standby";
            return h.from_standby || v[0] == "primary";
          }};
}

Field CopyTimeField() {
  return {"copy-microseconds", 1, true,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            lines.push_back(fmt::format("{}", absl::ToInt64Microseconds(h.copy_time)));
          },
          [](BackupHeader& h, Values v) {
            int64_t micros = 0;
            if (!ParseField(v[0], micros) || micros < 0) return false;
            h.copy_time = absl::Microseconds(micros);
            return true;
          }};
}

Field ChecksumsField() {
  return {"checksums", 1, true,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            lines.emplace_back(VerdictName(h.checksums));
          },
          [](BackupHeader& h, Values v) { return ParseVerdict(v[0], h.checksums); }};
}

Field CorruptPageField() {
  return {"corrupt-page", 3, false,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            for (const CorruptPage& page : h.corrupt_pages) {
              lines.push_back(fmt::format("{}\t{}\t{}", EscapeField(page.path), page.block,
                                          EscapeField(page.reason)));
            }
          },
          [](BackupHeader& h, Values v) {
            CorruptPage page;
            auto path = UnescapeField(v[0]);
            auto reason = UnescapeField(v[2]);
            if (!path || !reason || !ParseField(v[1], page.block)) return false;
            page.path = std::move(*path);
            page.reason = std::move(*reason);
            h.corrupt_pages.push_back(std::move(page));
            return true;
          }};
}

Field TablespaceField() {
  return {"tablespace", 2, false,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            for (const auto& [oid, path] : h.tablespaces) {
              lines.push_back(fmt::format("{}\t{}", oid, EscapeField(path)));
            }
          },
          [](BackupHeader& h, Values v) {
            uint32_t oid = 0;
            auto path = UnescapeField(v[1]);
            if (!path || !ParseField(v[0], oid)) return false;
            return h.tablespaces.emplace(oid, std::move(*path)).second;
          }};
}

// In one line, so that "none" and "not known" differ.
Field CreatedTablespacesField() {
  return {"created-tablespaces", 1, false,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            if (!h.created_tablespaces) return;
            std::string map;
            for (const auto& [oid, path] : *h.created_tablespaces) {
              map += TablespaceMapLine(oid, path);
            }
            lines.push_back(EscapeField(map));
          },
          [](BackupHeader& h, Values v) {
            const auto map = UnescapeField(v[0]);
            if (!map || h.created_tablespaces) return false;
            h.created_tablespaces = ParseTablespaceMap(*map);
            return true;
          }};
}

Field AnnotationField() {
  return {"annotation", 2, false,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            for (const auto& [name, text] : h.annotations) {
              lines.push_back(fmt::format("{}\t{}", EscapeField(name), EscapeField(text)));
            }
          },
          [](BackupHeader& h, Values v) {
            auto name = UnescapeField(v[0]);
            auto text = UnescapeField(v[1]);
            if (!name || !text) return false;
            return h.annotations.emplace(std::move(*name), std::move(*text)).second;
          }};
}

Field PackField() {
  return {"pack", 3, false,
          [](const BackupHeader& h, std::vector<std::string>& lines) {
            for (size_t i = 0; i < h.packs.size(); ++i) {
              lines.push_back(
                  fmt::format("{}\t{}\t{}", i, EscapeField(h.packs[i].path), h.packs[i].bytes));
            }
          },
          [](BackupHeader& h, Values v) {
            size_t index = 0;
            PackReference pack;
            auto path = UnescapeField(v[1]);
            if (!path || !IsSafeRelativePath(*path) || !ParseField(v[0], index) ||
                index != h.packs.size() || !ParseField(v[2], pack.bytes)) {
              return false;
            }
            pack.path = std::move(*path);
            h.packs.push_back(std::move(pack));
            return true;
          }};
}

const std::vector<Field>& Fields() {
  using H = BackupHeader;
  static const std::vector<Field>* fields = new std::vector<Field>{
      TextField("label", &H::label),
      TextField("type", &H::type),
      NumberField("system-identifier", &H::system_identifier),
      NumberField("postgres-version", &H::postgres_version),
      NumberField("control-version", &H::control_version),
      NumberField("catalog-version", &H::catalog_version),
      NumberField("page-size", &H::page_size),
      NumberField("segment-pages", &H::segment_blocks),
      NumberField("wal-segment-size", &H::wal_segment_size),
      SourceField(),
      NumberField("timeline", &H::timeline),
      LsnField("start-lsn", &H::start_lsn),
      LsnField("stop-lsn", &H::stop_lsn),
      TimeField("start-time", &H::start_time),
      TimeField("stop-time", &H::stop_time),
      CopyTimeField(),
      TextField("codec", &H::codec),
      NumberField("level", &H::level),
      TextField("io-engine", &H::io_engine),
      ChecksumsField(),
      NumberField("corrupt-pages", &H::corrupt_page_count),
      CorruptPageField(),
      NumberField("pages-in-window", &H::pages_in_window, false),
      NumberField("files", &H::files),
      NumberField("directories", &H::directories),
      NumberField("frames", &H::frames),
      NumberField("bytes", &H::bytes),
      NumberField("stored-bytes", &H::stored_bytes),
      TextField("data-directory", &H::data_directory),
      TablespaceField(),
      CreatedTablespacesField(),
      AnnotationField(),
      TextField("backup-label", &H::backup_label),
      TextField("tablespace-map", &H::tablespace_map),
      PackField(),
      NumberField("file-list-bytes", &H::file_list_bytes),
      TextField("file-list-sha256", &H::file_list_sha256),
  };
  return *fields;
}

absl::Status Damaged(std::string_view what) {
  return base::Error(absl::StatusCode::kDataLoss, "manifest: {}", what);
}

// Checks the last line and returns what it covers, without the first line.
absl::StatusOr<std::string_view> CheckEnvelope(std::string_view text) {
  const size_t first_end = text.find('\n');
  if (first_end == std::string_view::npos) return Damaged("no first line");
  const std::string_view first = text.substr(0, first_end);
  constexpr std::string_view kStart = "metal-backup\t";
  if (first.substr(0, kStart.size()) != kStart) return Damaged("not a manifest");
  if (first.substr(kStart.size()) != kFormat) {
    return base::Error(absl::StatusCode::kFailedPrecondition,
                       "manifest: format {} is not supported, this agent reads format {}. HINT: "
                       "upgrade the agent",
                       EscapeField(first.substr(kStart.size())), kFormat);
  }
  if (text.back() != '\n') return Damaged("the end is missing");
  size_t last_start = text.rfind('\n', text.size() - 2);
  if (last_start == std::string_view::npos) return Damaged("the end is missing");
  ++last_start;
  std::string_view last = text.substr(last_start, text.size() - 1 - last_start);
  if (last.substr(0, 4) != "end\t") return Damaged("the end is missing");
  last.remove_prefix(4);
  if (last != Sha256Of(text.substr(0, last_start)))
    return Damaged("contents do not match the hash");
  return text.substr(first_end + 1, last_start - first_end - 1);
}

absl::Status CheckValues(const BackupHeader& h) {
  const auto power_of_two = [](uint64_t n) { return n != 0 && (n & (n - 1)) == 0; };
  if (!power_of_two(h.wal_segment_size) || h.wal_segment_size < base::kMiB ||
      h.wal_segment_size > base::kGiB) {
    return Damaged("wal-segment-size is out of range");
  }
  if (!power_of_two(h.page_size) || h.page_size > 32768 || h.segment_blocks == 0) {
    return Damaged("page-size or segment-pages is out of range");
  }
  if (h.timeline == 0 || h.start_lsn > h.stop_lsn) return Damaged("WAL range is out of order");
  if (h.file_list_sha256.size() != 64) return Damaged("file-list-sha256 has a wrong length");
  return absl::OkStatus();
}

}  // namespace

std::string FormatManifest(const BackupHeader& header) {
  std::string text = fmt::format("metal-backup\t{}\n", kFormat);
  std::vector<std::string> lines;
  for (const Field& field : Fields()) {
    lines.clear();
    field.write(header, lines);
    for (const std::string& line : lines) {
      text += field.key;
      text += '\t';
      text += line;
      text += '\n';
    }
  }
  text += fmt::format("end\t{}\n", Sha256Of(text));
  return text;
}

absl::StatusOr<BackupHeader> ParseManifest(std::string_view text) {
  METAL_ASSIGN_OR_RETURN(std::string_view body, CheckEnvelope(text));
  std::unordered_map<std::string_view, const Field*> by_key;
  std::unordered_map<std::string_view, int> seen;
  for (const Field& field : Fields()) by_key.emplace(field.key, &field);
  BackupHeader header;
  while (!body.empty()) {
    const size_t end = body.find('\n');  // CheckEnvelope: the body ends with a newline
    std::string_view parts[4];
    const size_t count = SplitFields(body.substr(0, end), parts);
    const auto field = by_key.find(parts[0]);
    if (field == by_key.end()) {
      return Damaged(fmt::format("unknown key {}", EscapeField(parts[0])));
    }
    if (count != field->second->values + 1 ||
        !field->second->read(header, Values(parts).subspan(1, field->second->values))) {
      return Damaged(fmt::format("bad value of {}", parts[0]));
    }
    if (++seen[field->first] > 1 && field->second->required) {
      return Damaged(fmt::format("{} is given twice", parts[0]));
    }
    body.remove_prefix(end + 1);
  }
  for (const Field& field : Fields()) {
    if (field.required && seen.find(field.key) == seen.end()) {
      return Damaged(fmt::format("{} is missing", field.key));
    }
  }
  METAL_RETURN_IF_ERROR(CheckValues(header));
  return header;
}

}  // namespace metal::backup
