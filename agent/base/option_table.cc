#include "agent/base/option_table.h"

#include <limits>

namespace metal::base {
namespace {

using C = AgentConfig;
constexpr int64_t kDay = 24 * 3600 * 1000;  // in milliseconds
constexpr auto kGibi = static_cast<int64_t>(kGiB);
constexpr auto kMebi = static_cast<int64_t>(kMiB);

const Option kOptions[] = {
    {"agent", "node_id", &C::node_id, R"("")",
     "Name of this node, unique in the shard. Empty: the host name.", TextRule::kName},
    {"agent", "cluster_id", &C::cluster_id, R"("default")",
     "Label of the shard that this node belongs to.", TextRule::kName},
    {"agent", "state_dir", &C::state_dir, R"("/var/lib/metal")",
     "Terms, fences, operations and the event log. Keep it on another device than the data.",
     TextRule::kRequiredPath},
    {"agent", "os_user", &C::os_user, R"("postgres")",
     "User to run as when started by root: the owner of the data directory.", TextRule::kName},
    {"agent", "socket", &C::socket, R"("/run/metal/agent.sock")",
     "gRPC unix socket for root and the agent's group.", TextRule::kRequiredPath},
    {"agent", "wal_socket", &C::wal_socket, R"("/run/metal/wal.sock")",
     "Unix socket on which metal-wal hands over WAL segments.", TextRule::kRequiredPath},
    {"agent", "listen", &C::listen, R"("")",
     "Address of the TCP listener, for example \"0.0.0.0:7420\". Empty: none. Port 0: any free "
     "port.\n"
     "Without TLS only a loopback address is accepted.",
     TextRule::kListenAddress},
    {"agent", "port_file", &C::port_file, R"("")",
     "File that receives the bound \"host:port\". Empty: none.", TextRule::kPath},
    {"agent", "log_level", &C::log_level, R"("info")", "Least level of log lines.",
     TextRule::kOneOf, "trace, debug, info, warning, error"},

    {"tls", "certificate", &C::tls_certificate, R"("")",
     "PEM file of this node's certificate chain. Give all three files or none.", TextRule::kPath},
    {"tls", "key", &C::tls_key, R"("")", "PEM file of the certificate's private key.",
     TextRule::kPath},
    {"tls", "client_ca", &C::tls_client_ca, R"("")",
     "PEM file of the authority that signs callers' certificates.", TextRule::kPath},

    {"postgres", "bin_dir", &C::pg_bin_dir, R"("")",
     "Directory of the server's programs. Empty: the newest /usr/lib/postgresql/*/bin.",
     TextRule::kPath},
    {"postgres", "data_dir", &C::pg_data_dir, R"("")", "The data directory. Must be given.",
     TextRule::kRequiredPath},
    {"postgres", "wal_dir", &C::pg_wal_dir, R"("")",
     "Where a new data directory keeps its WAL. Empty: inside the data directory.",
     TextRule::kPath},
    {"postgres", "socket_dir", &C::pg_socket_dir, R"("/run/metal")",
     "Directory of the server's unix socket.", TextRule::kRequiredPath},
    {"postgres", "port", &C::pg_port, "5432", "Port of the server.", TextRule::kAny, "1 to 65535",
     1, 65535},
    {"postgres", "listen_addresses", &C::pg_listen_addresses, R"("127.0.0.1")",
     "listen_addresses of the server. Empty: unix socket only."},
    {"postgres", "superuser", &C::pg_superuser, R"("postgres")",
     "Database role that the agent connects as.", TextRule::kName},
    {"postgres", "restart_max", &C::pg_restart_max, "5",
     "Restarts after a crash within restart_window before the server is left alone.",
     TextRule::kAny, "0 to 1000", 0, 1000},
    {"postgres", "restart_window", &C::pg_restart_window, R"("10m")", "See restart_max.",
     TextRule::kAny, "1s to 24h", 1000, kDay},
    {"postgres", "heartbeat_interval", &C::pg_heartbeat_interval, R"("1s")",
     "How often a primary updates metal.heartbeat in database postgres: some 200 bytes of WAL, and "
     "a\n"
     "lag in seconds that is right on standbys also during one long transaction. 0s: never.",
     TextRule::kAny, "0s to 1h", 0, kDay / 24},

    {"replication", "user", &C::replication_user, R"("metal_replication")",
     "Database role that standbys and pg_rewind log in with; the primary's agent makes it.",
     TextRule::kName},
    {"replication", "password_file", &C::replication_password_file, R"("")",
     "File with the role's password on its first line, the same on every node. Empty: no role is "
     "made,\n"
     "and standbys log in as the superuser without a password (a unix socket).",
     TextRule::kPath},
    {"replication", "networks", &C::replication_networks, R"("")",
     "Where the other nodes are: addresses as in pg_hba.conf (\"10.1.0.0/16\", \"samenet\"), "
     "separated by blanks.\n"
     "Empty: no line of pg_hba.conf is managed for them."},
    {"replication", "ssl_mode", &C::replication_ssl_mode, R"("prefer")",
     "sslmode of a standby's connection to its primary.", TextRule::kOneOf,
     "disable, allow, prefer, require, verify-ca, verify-full"},
    {"transfer", "listen", &C::transfer_listen, R"("")",
     "Address where other agents clone this node, for example \"0.0.0.0:7422\". Empty: none. Port "
     "0: any\n"
     "free port. With [tls] callers need the role peer or orchestrator; without it only a "
     "loopback\n"
     "address is accepted.",
     TextRule::kListenAddress},
    {"transfer", "port_file", &C::transfer_port_file, R"("")",
     "File that receives the bound \"host:port\". Empty: none.", TextRule::kPath},
    {"transfer", "connections", &C::transfer_connections, "2",
     "Connections over which this node clones another one.", TextRule::kAny, "1 to 8", 1, 8},

    {"repository", "path", &C::repository_path, R"("")",
     "Directory of backups and archived WAL. Empty: backups and archiving are off. An agent that "
     "has "
     "used one takes no other in its place: repository.id in state_dir says which.",
     TextRule::kPath},
    {"repository", "wal_helper", &C::wal_helper, R"("")",
     "Path of metal-wal. Empty: beside the agent's executable.", TextRule::kPath},

    {"backup", "codec", &C::backup_codec, R"("zstd")", "How pages are compressed.",
     TextRule::kOneOf, "zstd, lz4, none"},
    {"backup", "level", &C::backup_level, "1", "Compression level of zstd.", TextRule::kAny,
     "1 to 19", 1, 19},
    {"backup", "threads", &C::backup_threads, "0", "Threads that compress. 0: one for each CPU.",
     TextRule::kAny, "0 to 256", 0, 256},
    {"backup", "queue_depth", &C::backup_queue_depth, "16",
     "Reads in flight; a restore takes three times as many.", TextRule::kAny, "1 to 256", 1, 256},
    {"backup", "io_engine", &C::io_engine, R"("auto")",
     "How files are read and written. auto: io_uring where the kernel has it, else threads.",
     TextRule::kOneOf, "auto, io_uring, threads, pread"},
    {"backup", "memory", &C::backup_memory, R"("192MiB")",
     "Buffers of all backups, restores and verifications together.", TextRule::kAny,
     "16MiB to 64GiB", 16 * kMebi, 64 * kGibi},

    {"backup", "rate_limit", &C::backup_rate_limit, R"("0B")",
     "What backups of this node and clones from it read in a second at most, all together. 0B: as "
     "much as they can.",
     TextRule::kAny, "0B, or 1MiB to 1TiB", 0, 1024 * kGibi},
    {"backup", "latency_max", &C::backup_latency_max, R"("0s")",
     "They read more slowly while probes of the data disk take longer than this, for example "
     "\"5ms\", and while\n"
     "more and more WAL waits for the archiver. 0s: nobody looks.",
     TextRule::kAny, "0s to 10s", 0, 10'000},

    {"gate", "enabled", &C::gate_enabled, "false",
     "Whether the agent runs a PgBouncer through which clients reach the shard's primary."},
    {"gate", "listen", &C::gate_listen, R"("127.0.0.1:6432")",
     "Address for clients, for example \"0.0.0.0:6432\".", TextRule::kListenAddress},
    {"gate", "read_only_listen", &C::gate_read_only_listen, R"("")",
     "Address of a second door, to this host's standby, for readers. Empty: none.",
     TextRule::kListenAddress},
    {"gate", "pgbouncer", &C::gate_pgbouncer, R"("/usr/sbin/pgbouncer")",
     "Path of pgbouncer. Debian's own service of it is not used.", TextRule::kRequiredPath},
    {"gate", "pool_mode", &C::gate_pool_mode, R"("transaction")",
     "How long a client keeps a server connection. With session a hold waits until clients leave.",
     TextRule::kOneOf, "transaction, session, statement"},
    {"gate", "auth_type", &C::gate_auth_type, R"("scram-sha-256")",
     "How clients prove who they are. trust: not at all, only at a loopback address.",
     TextRule::kOneOf, "scram-sha-256, trust"},
    {"gate", "auth_file", &C::gate_auth_file, R"("")",
     "PgBouncer's file of users and SCRAM secrets. Empty: the agent writes one from the roles of "
     "its server.",
     TextRule::kPath},
    {"gate", "client_tls", &C::gate_client_tls, R"("disable")",
     "Whether clients may or must use TLS.", TextRule::kOneOf, "disable, allow, require"},
    {"gate", "certificate", &C::gate_certificate, R"("")",
     "PEM file of the door's certificate chain, for client_tls. The agent's user must read it.",
     TextRule::kPath},
    {"gate", "key", &C::gate_key, R"("")", "PEM file of that certificate's private key.",
     TextRule::kPath},
    {"gate", "server_tls", &C::gate_server_tls, R"("prefer")",
     "TLS of the door to servers, as sslmode of libpq.", TextRule::kOneOf,
     "disable, prefer, require, verify-ca, verify-full"},
    {"gate", "server_ca", &C::gate_server_ca, R"("")",
     "PEM file of the authority that signs servers' certificates, for verify-ca and verify-full.",
     TextRule::kPath},
    {"gate", "max_client_conn", &C::gate_max_client_conn, "1000", "Clients at one door.",
     TextRule::kAny, "1 to 100000", 1, 100000},
    {"gate", "default_pool_size", &C::gate_default_pool_size, "20",
     "Server connections for each pair of user and database.", TextRule::kAny, "1 to 10000", 1,
     10000},
    {"gate", "read_only_max_lag", &C::gate_read_only_max_lag, R"("10s")",
     "The read-only door is open while the standby is no further behind.", TextRule::kAny,
     "100ms to 24h", 100, kDay},
    {"gate", "hold_max", &C::gate_hold_max, R"("30s")",
     "The longest hold, and how long one lasts that does not say.", TextRule::kAny, "1s to 10m",
     1000, 10 * 60 * 1000},

    {"disk", "probe_enabled", &C::probe_enabled, "true",
     "Whether small reads and writes measure the disks all the time."},
    {"disk", "probe_read_interval", &C::probe_read_interval, R"("500ms")",
     "Time between probe reads.", TextRule::kAny, "10ms to 1h", 10, kDay / 24},
    {"disk", "probe_write_interval", &C::probe_write_interval, R"("1s")",
     "Time between probe writes.", TextRule::kAny, "10ms to 1h", 10, kDay / 24},
    {"disk", "probe_stall_after", &C::probe_stall_after, R"("3s")",
     "A probe in flight for longer means that the device has stalled.", TextRule::kAny,
     "100ms to 10m", 100, 10 * 60 * 1000},
    {"disk", "reaction", &C::disk_reaction, R"("drain")",
     "What confirmed faults may ask for at most, but for classes in [disk.reactions].\n"
     "demote: a primary on a disk with a fatal fault fences itself.",
     TextRule::kOneOf, "observe, drain, demote"},
    {"disk", "cut_clients", &C::disk_cut_clients, "true",
     "Whether a primary that fences itself also keeps clients away from PostgreSQL's port, with a\n"
     "table of nftables of its own (metal_<port>) until it is unfenced. Needs root at the start."},
    {"disk", "unlisted_logs", &C::disk_unlisted_logs, "false",
     "Whether drives that do not list their logs are asked for OCP's (C0h) all the same. One that "
     "has\n"
     "none counts the question among its errors, once in each run of the agent."},
    {"disk", "xfs_retry_for", &C::xfs_retry_for, R"("5s")",
     "How long XFS retries metadata writes that fail before it shuts down; 0 leaves XFS as it is.",
     TextRule::kAny, "0 to 24h", 0, kDay},
    {"disk", "watchdog", &C::disk_watchdog, R"("")",
     "The hardware watchdog that resets the host of a primary whose disk no longer answers, such "
     "as\n"
     "/dev/watchdog; empty: none. It is fed while the probes of the database's disks come back.",
     TextRule::kPath},
    {"disk", "watchdog_timeout", &C::disk_watchdog_timeout, R"("30s")",
     "How long the watchdog waits before it resets the host.", TextRule::kAny, "10s to 10m",
     10 * 1000, 10 * 60 * 1000},
    {"disk", "reserve", &C::disk_reserve, R"("1GiB")",
     "Space kept back in a file beside the data directory (and beside the directory of pg_wal when "
     "it\n"
     "lies on another file system), which the server is given when it ends for want of space or "
     "soon would.\n"
     "At most 1 % of the file system, or 64 MiB where that is more. 0B: none.",
     TextRule::kAny, "0B to 1TiB", 0, 1024 * kGibi},
    {"disk", "read_only_at", &C::disk_read_only_at, "97",
     "Percent of its disk from which a primary makes transactions read-only, until there is half "
     "as much\n"
     "more free again; also with less than 64 MiB free. A session that sets\n"
     "default_transaction_read_only itself still writes. 0: never.",
     TextRule::kAny, "0 to 99", 0, 99},

    {"recorder", "directory", &C::recorder_directory, R"("")",
     "Where the flight recorder keeps its ring, and what it captured after a fault. Another device "
     "than the\n"
     "data's; memory (tmpfs) will do, but does not outlive a power cut. Empty: recorder in "
     "state_dir.",
     TextRule::kPath},
    {"recorder", "size", &C::recorder_size, R"("64MiB")",
     "Size of the ring, taken at the first start.", TextRule::kAny, "1MiB to 16GiB", kMebi,
     16 * kGibi},
    {"recorder", "captures_kept", &C::recorder_captures_kept, "5",
     "Captures that are kept of those taken by itself when a fatal fault is confirmed. 0: takes "
     "none.",
     TextRule::kAny, "0 to 100", 0, 100},
};

}  // namespace

std::span<const Option> Options() { return kOptions; }

}  // namespace metal::base
