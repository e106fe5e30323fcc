#include "tools/metalctl/shard/shard_config.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "absl/strings/numbers.h"
#include "agent/base/file.h"
#include "agent/base/option_value.h"
#include "agent/base/status.h"
#include "agent/base/toml_text.h"
#include "agent/base/units.h"
#include "tools/metalctl/address.h"
#include "tools/metalctl/command_tree.h"

namespace metal::shard {
namespace {

constexpr size_t kLongestFile = 1 << 20;
constexpr size_t kMostNodes = 15;
constexpr std::string_view kSyntaxHint =
    "HINT: the file is TOML; metalctl shard template shows one";

// What is read so far; `node` is null outside of [[node]].
struct Target {
  ShardConfig& config;
  ShardNode* node;
};

// One key of the file. `read` stores the text and says whether it is one that is allowed.
struct Key {
  std::string_view section, key;
  bool required;
  bool (*read)(const Target&, const std::string&);
  std::string_view example;  // also the default when the key is not required
  std::string_view allowed, meaning;
};

bool IsName(std::string_view text) {
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  };
  return !text.empty() && text.size() <= 63 && std::all_of(text.begin(), text.end(), allowed);
}

bool ReadName(std::string& out, const std::string& text) {
  out = text;
  return IsName(text);
}

bool ReadPath(const Target& target, std::string& out, const std::string& text) {
  const size_t slash = target.config.file.rfind('/');
  const bool relative = text[0] != '/' && slash != std::string::npos;
  out = relative ? target.config.file.substr(0, slash + 1) + text : text;
  return true;
}

bool ReadAgent(const Target& target, const std::string& text) {
  target.node->agent = text;
  return text.rfind("unix:/", 0) == 0 || (text[0] != '/' && ParseHostPort(text).has_value());
}

bool ReadHostPort(HostPort& out, const std::string& text) {
  const auto address = ParseHostPort(text);
  out = address.value_or(HostPort{});
  return address.has_value();
}

constexpr std::string_view kName = "1 to 63 letters, digits, '.', '_' or '-'";
constexpr std::string_view kFile = "a path";
constexpr std::string_view kAddress = "\"host:port\" or \"/socket-directory:port\"";

constexpr uint64_t kCloneRateMin = 1 << 20;  // what an agent takes

const Key kKeys[] = {
    {"shard", "name", true,
     [](const Target& t, const std::string& v) { return ReadName(t.config.name, v); }, "orders",
     kName, "agent.cluster_id of every node: an agent of another shard is never changed."},
    {"shard", "orchestrator", false,
     [](const Target& t, const std::string& v) { return ReadName(t.config.orchestrator, v); },
     "metalctl", kName,
     "Under which name terms are begun. The same wherever this shard is operated from, so that a "
     "procedure that was cut off can be finished."},
    {"shard", "synchronous", false,
     [](const Target& t, const std::string& v) {
       const auto policy = ParseSyncPolicy(v);
       t.config.policy = policy.value_or(SyncPolicy{});
       return policy.has_value();
     },
     "ANY 1", "\"ANY k\" or \"FIRST k\"",
     "A commit is acknowledged once this many standbys have it; FIRST prefers nodes in the order "
     "of "
     "this file."},
    {"shard", "max_lag", false,
     [](const Target& t, const std::string& v) {
       const auto bytes = base::ByteCount::Parse(v);
       t.config.max_lag_bytes = bytes ? bytes->value : 0;
       return t.config.max_lag_bytes > 0;
     },
     "16MiB", "a size, for example 16MiB",
     "A standby farther behind is reported, and a planned reparent does not go to it."},
    {"shard", "clone_rate", false,
     [](const Target& t, const std::string& v) {
       const auto bytes = base::ByteCount::Parse(v);
       t.config.clone_rate = bytes ? bytes->value : 0;
       return bytes && (bytes->value == 0 || bytes->value >= kCloneRateMin);
     },
     "0", "a size, for example 200MiB, at least 1MiB; 0: no limit",
     "Bytes per second of a node that init, replace or recover clones, so that its source has disk "
     "and network left for clients."},
    {"tls", "ca", false,
     [](const Target& t, const std::string& v) { return ReadPath(t, t.config.ca, v); }, "", kFile,
     "PEM file of the authority that signs agents' certificates. Give all three files or none."},
    {"tls", "certificate", false,
     [](const Target& t, const std::string& v) { return ReadPath(t, t.config.cert, v); }, "", kFile,
     "PEM file of metalctl's certificate; agents must know it as an orchestrator."},
    {"tls", "key", false,
     [](const Target& t, const std::string& v) { return ReadPath(t, t.config.key, v); }, "", kFile,
     "PEM file of that certificate's private key."},
    {"node", "id", true,
     [](const Target& t, const std::string& v) { return ReadName(t.node->id, v); }, "a", kName,
     "agent.node_id of the node."},
    {"node", "agent", true, ReadAgent, "10.0.0.1:7420", "\"host:port\" or \"unix:/path\"",
     "Endpoint of its agent."},
    {"node", "server_name", false,
     [](const Target& t, const std::string& v) {
       t.node->server_name = v;
       return true;
     },
     "", "a name", "Name that its certificate must hold, where it is not that of the endpoint."},
    {"node", "postgres", true,
     [](const Target& t, const std::string& v) { return ReadHostPort(t.node->postgres, v); },
     "10.0.0.1:5432", kAddress, "Its PostgreSQL, as the other nodes reach it."},
    {"node", "gate", false,
     [](const Target& t, const std::string& v) { return ReadHostPort(t.node->gate, v); }, "",
     kAddress, "Its PgBouncer, where clients connect. Given: check finds a node that has none."},
    {"node", "transfer", false,
     [](const Target& t, const std::string& v) { return ReadHostPort(t.node->transfer, v); }, "",
     "\"host:port\"", "Its agent's transfer.listen. Left out: no node is cloned from it."},
};

const Key* FindKey(std::string_view section, std::string_view key) {
  const auto* found = std::find_if(std::begin(kKeys), std::end(kKeys), [&](const Key& each) {
    return each.section == section && each.key == key;
  });
  return found == std::end(kKeys) ? nullptr : found;
}

std::string Suggestion(std::string_view given, const std::vector<std::string>& known) {
  const auto nearest = given.size() <= 64 ? ctl::Nearest(given, known) : std::nullopt;
  if (nearest) return fmt::format("did you mean {}?", *nearest);
  return fmt::format("known: {}", fmt::join(known, ", "));
}

std::vector<std::string> KeysOf(std::string_view section) {
  std::vector<std::string> keys;
  for (const Key& each : kKeys) {
    if (each.section == section) keys.emplace_back(each.key);
  }
  return keys;
}

// Reads one table; `given` receives the keys that it has.
absl::Status ReadTable(const base::Reporter& reporter, std::string_view section,
                       const toml::table& table, const Target& target) {
  std::set<std::string_view> given;
  for (const auto& [name, value] : table) {
    const Key* key = FindKey(section, name.str());
    if (key == nullptr) {
      return reporter.At(value.source(), "{}.{}: unknown key. HINT: {}", section,
                         base::Shown(name.str()), Suggestion(name.str(), KeysOf(section)));
    }
    const auto* text = value.as_string();
    if (text == nullptr || text->get().empty() || base::HasControlCharacter(text->get())) {
      return reporter.At(value.source(),
                         "{}.{}: must be a string that is not empty. HINT: {} = \"{}\"", section,
                         key->key, key->key, key->example.empty() ? "…" : key->example);
    }
    if (!key->read(target, text->get())) {
      return reporter.At(value.source(), "{}.{} = \"{}\": must be {}. HINT: for example \"{}\"",
                         section, key->key, base::Shown(text->get()), key->allowed,
                         key->example.empty() ? "10.0.0.1:6432" : key->example);
    }
    given.insert(key->key);
  }
  for (const Key& key : kKeys) {
    if (key.section != section || !key.required || given.contains(key.key)) continue;
    return reporter.At(table.source(), "{}.{}: must be given. HINT: add {} = \"{}\"", section,
                       key.key, key.key, key.example);
  }
  return absl::OkStatus();
}

absl::Status ReadNodes(const base::Reporter& reporter, const toml::node& node,
                       ShardConfig& config) {
  constexpr std::string_view kHint = "HINT: write [[node]] once for each node";
  const auto* tables = node.as_array();
  if (tables == nullptr)
    return reporter.At(node.source(), "node: must be an array of tables. {}", kHint);
  for (const toml::node& element : *tables) {
    const auto* table = element.as_table();
    if (table == nullptr) return reporter.At(element.source(), "node: must be a table. {}", kHint);
    ShardNode read;
    METAL_RETURN_IF_ERROR(ReadTable(reporter, "node", *table, {config, &read}));
    for (const ShardNode& other : config.nodes) {
      const bool same_id = other.id == read.id || SlotName(other.id) == SlotName(read.id);
      if (!same_id && other.agent != read.agent && other.postgres != read.postgres) continue;
      return reporter.At(table->source(),
                         "node {}: has the {} of node {}. HINT: each node has its own", read.id,
                         same_id ? "id (or its slot's name)" : "address", other.id);
    }
    config.nodes.push_back(std::move(read));
  }
  return absl::OkStatus();
}

absl::StatusOr<ShardConfig> ReadRoot(const base::Reporter& reporter, const toml::table& root,
                                     const std::string& file) {
  ShardConfig config;
  config.file = file;
  for (const Key& key : kKeys) {
    if (key.section != "node" && !key.required && !key.example.empty()) {
      key.read({config, nullptr}, std::string(key.example));
    }
  }
  for (const auto& [name, value] : root) {
    if (name.str() == "node") {
      METAL_RETURN_IF_ERROR(ReadNodes(reporter, value, config));
      continue;
    }
    if (name.str() != "shard" && name.str() != "tls") {
      return reporter.At(value.source(), "{}: unknown section. HINT: {}", base::Shown(name.str()),
                         Suggestion(name.str(), {"shard", "tls", "node"}));
    }
    const auto* table = value.as_table();
    if (table == nullptr) {
      return reporter.At(value.source(), "{}: must be a section. HINT: write [{}]", name.str(),
                         name.str());
    }
    METAL_RETURN_IF_ERROR(ReadTable(reporter, name.str(), *table, {config, nullptr}));
  }
  return config;
}

// What spans several keys.
absl::Status CheckTogether(const base::Reporter& reporter, const ShardConfig& config) {
  if (config.name.empty()) {
    return reporter.At({}, "shard.name: must be given. HINT: add name = \"orders\" under [shard]");
  }
  if (config.nodes.size() < 2 || config.nodes.size() > kMostNodes) {
    return reporter.At({},
                       "node: there are {}, must be 2 to {}. HINT: write [[node]] once for each",
                       config.nodes.size(), kMostNodes);
  }
  if (static_cast<size_t>(config.policy.count) >= config.nodes.size()) {
    return reporter.At(
        {},
        "shard.synchronous = \"{}\": a shard of {} nodes has {} standbys. HINT: at most "
        "\"ANY {}\"",
        config.policy.ToString(), config.nodes.size(), config.nodes.size() - 1,
        config.nodes.size() - 1);
  }
  const int files = !config.ca.empty() + !config.cert.empty() + !config.key.empty();
  if (files != 0 && files != 3) {
    return reporter.At({},
                       "tls: give ca, certificate and key, or none. HINT: metalctl shard template");
  }
  return absl::OkStatus();
}

}  // namespace

std::string HostPort::ToString() const {
  const bool v6 = host.find(':') != std::string::npos && host[0] != '/';
  return v6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

std::optional<HostPort> ParseHostPort(std::string_view text) {
  HostPort address;
  if (!ctl::ParseAddress(std::string(text), &address.host, &address.port)) return std::nullopt;
  return address;
}

std::string SyncPolicy::ToString() const {
  return fmt::format("{} {}", method == Method::kAny ? "ANY" : "FIRST", count);
}

std::string SyncPolicy::Setting(const std::vector<std::string>& standbys) const {
  std::string names;
  for (const auto& each : standbys) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", each);
  }
  return fmt::format("{} ({})", ToString(), names);
}

std::optional<SyncPolicy> ParseSyncPolicy(std::string_view text) {
  const size_t space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  SyncPolicy policy;
  const std::string_view method = text.substr(0, space);
  if (method != "ANY" && method != "FIRST") return std::nullopt;
  policy.method = method == "ANY" ? SyncPolicy::Method::kAny : SyncPolicy::Method::kFirst;
  const std::string count(text.substr(space + 1));
  if (!absl::SimpleAtoi(count, &policy.count) || policy.count < 1) return std::nullopt;
  return policy;
}

std::optional<size_t> ShardConfig::Find(std::string_view id) const {
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].id == id) return i;
  }
  return std::nullopt;
}

std::string ShardConfig::Ids() const {
  std::string ids;
  for (const auto& node : nodes) ids += (ids.empty() ? "" : ", ") + node.id;
  return ids;
}

bool ShardConfig::IsOurs(std::string_view holder) const {
  if (holder.rfind(orchestrator, 0) != 0) return false;
  return holder.size() == orchestrator.size() || holder[orchestrator.size()] == ':';
}

absl::StatusOr<ShardConfig> ParseShardConfig(std::string_view toml, const std::string& file) {
  const base::Reporter reporter(file);
  if (const auto objection = base::ObjectToTomlText(toml)) {
    return base::Error(absl::StatusCode::kInvalidArgument, "{}:{}: {}. {}", file, objection->line,
                       objection->what, kSyntaxHint);
  }
  try {
    METAL_ASSIGN_OR_RETURN(ShardConfig config, ReadRoot(reporter, toml::parse(toml, file), file));
    METAL_RETURN_IF_ERROR(CheckTogether(reporter, config));
    return config;
  } catch (const toml::parse_error& error) {  // the library's only way to report
    return reporter.At(error.source(), "{}. {}", error.description(), kSyntaxHint);
  }
}

absl::StatusOr<ShardConfig> LoadShardConfig(const std::string& path) {
  const auto text = base::ReadFile(path, kLongestFile);
  if (!text.ok()) {
    return base::Error(
        text.status().code(),
        "read the shard's file: {}. HINT: give --config or METAL_SHARD; metalctl shard "
        "template > {}",
        std::string(text.status().message()), path);
  }
  METAL_ASSIGN_OR_RETURN(ShardConfig config, ParseShardConfig(*text, path));
  for (const std::string& file : {config.ca, config.cert, config.key}) {
    if (file.empty()) continue;
    if (const auto readable = base::ReadFile(file, kLongestFile); !readable.ok()) {
      return base::Error(readable.status().code(),
                         "{}: tls: {}. HINT: the files are PEM, and the caller "
                         "must be able to read them",
                         path, std::string(readable.status().message()));
    }
  }
  return config;
}

std::string ShardConfigTemplate() {
  std::string text = "# A shard for metalctl shard (TOML). Lines with a '#' show the default.\n";
  std::string_view section;
  for (const Key& key : kKeys) {
    if (key.section == "node") break;
    if (key.section != section) text += fmt::format("\n[{}]\n", key.section);
    section = key.section;
    text += fmt::format("# {} Allowed: {}.\n{}{} = \"{}\"\n", key.meaning, key.allowed,
                        key.required ? "" : "#", key.key, key.example);
  }
  text += "\n# One block for each node.\n";
  for (const Key& key : kKeys) {
    if (key.section == "node") text += fmt::format("# {}: {}\n", key.key, key.meaning);
  }
  for (int i = 1; i <= 3; ++i) {
    text += fmt::format(
        "\n[[node]]\nid = \"{}\"\nagent = \"10.0.0.{}:7420\"\npostgres = \"10.0.0.{}:5432\"\n"
        "#gate = \"10.0.0.{}:6432\"\ntransfer = \"10.0.0.{}:7421\"\n",
        static_cast<char>('a' + i - 1), i, i, i, i);
  }
  return text;
}

std::string SlotName(std::string_view id) {
  std::string name = "metal_";
  for (const char c : id) {
    const auto byte = static_cast<unsigned char>(c);
    name += std::isalnum(byte) != 0 ? static_cast<char>(std::tolower(byte)) : '_';
  }
  return name;
}

}  // namespace metal::shard
