# shellcheck shell=bash disable=SC2154,SC2034  # sourced by deploy/quickstart, which sets the variables
# The proof: source and copy are compared at one and the same point of the WAL, a restore point made after the backup. While
# it is made and the source is read, nobody can write to its tables; the copy stops replaying exactly there.

copy_started=no

# All but the heartbeat, which the agent writes once a second, also between the restore point and the reading.
user_tables="from pg_class c join pg_namespace n on n.oid = relnamespace
  where relkind in ('r', 'm') and (nspname, relname) <> ('metal', 'heartbeat') and nspname not in
  ('pg_catalog', 'information_schema') and nspname !~ '^pg_(toast|temp)'"

# Prints "DATABASE TABLE: N rows, checksum C" for all tables of database $2 of the server on port $1.
# $3: SQL to run first, in the same transaction.
checksums_of_database() {
  psql_at "$1" "$2" -f - << SQL
begin;
${3:-}
select format('select %L || count(*) || '' rows, checksum '' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)
  from %I.%I t', format('%s %I.%I: ', current_database(), nspname, relname), nspname, relname)
  $user_tables order by nspname, relname \\gexec
commit;
SQL
}

databases_of() { sql "$1" postgres 'select datname from pg_database where datallowconn order by 1'; }

# The checksums of the source at the restore point, to $dir/log/source.sums.
checksum_source() {
  step 'Stop the load, set a restore point, and read the source as it is there'
  local database locks
  point=quickstart-$(date -u +%Y%m%dT%H%M%S)-$$
  # Whoever has written to a table has committed before the lock is ours, so before the restore point.
  locks="select format('lock table %I.%I in share mode', nspname, relname) $user_tables and relkind = 'r' \\gexec
    select 'point ' || pg_create_restore_point('$point');"
  checksums_of_database "$port" bench "$locks" > "$dir/log/source.new"
  point_lsn=$(sed -n 's/^point //p' "$dir/log/source.new")
  databases_of "$port" > "$dir/log/source.databases"
  while read -r database; do
    [ "$database" = bench ] || checksums_of_database "$port" "$database" >> "$dir/log/source.new"
  done < "$dir/log/source.databases"
  grep -v '^point ' "$dir/log/source.new" > "$dir/log/source.sums"
  rm -f "$dir/log/source.new"
  sql "$port" postgres 'select pg_switch_wal()' > /dev/null
  ok "restore point $point at $point_lsn, $(wc -l < "$dir/log/source.sums") tables read"
}

restore_copy() {
  step 'Restore into a second directory'
  stop_server "$dir/copy"
  rm -rf "$dir/copy"
  copy_port=$(free_port)
  ctl backup restore latest --target "$dir/copy" --recover standby --port "$copy_port"
}

verify_files() {
  step 'pg_verifybackup on the restored files'
  as_pg "$bindir/pg_verifybackup" --no-parse-wal "$dir/copy"
}

start_copy() {
  step 'PostgreSQL on the copy: recover, replay the archive up to the restore point, stop there'
  # A standby asks the archive again only after 5 s when the last segment is not there yet.
  copy_started=yes
  as_pg "$bindir/pg_ctl" -D "$dir/copy" -l "$dir/log/copy.log" -w -t 300 \
    -o "-c recovery_target_name=$point -c recovery_target_action=pause -c wal_retrieve_retry_interval=100ms" start > /dev/null 9>&- ||
    fail "the copy did not start. HINT: see $dir/log/copy.log"
  wait_for 300 "replay of $point_lsn on the copy" copy_is_at_the_point
  ok "the copy has replayed $(sql "$copy_port" postgres 'select pg_last_wal_replay_lsn()') and stands still"
}
copy_is_at_the_point() {
  [ "$(sql "$copy_port" postgres "select pg_is_wal_replay_paused() and pg_last_wal_replay_lsn() = '$point_lsn'")" = t ]
}

compare() {
  step 'Compare every table: row count and checksum, source against copy'
  local database tables
  sql "$copy_port" bench "select 1/(((select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
    and (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history))::int)" > /dev/null ||
    fail 'the copy breaks the invariant of pgbench: balances do not equal the history'
  databases_of "$copy_port" | cmp -s - "$dir/log/source.databases" || fail 'the copy has other databases than the source'
  checksums_of_database "$copy_port" bench > "$dir/log/copy.sums"
  while read -r database; do
    [ "$database" = bench ] || checksums_of_database "$copy_port" "$database" >> "$dir/log/copy.sums"
  done < "$dir/log/source.databases"
  diff "$dir/log/source.sums" "$dir/log/copy.sums" ||
    fail "source (<) and copy (>) differ at restore point $point. HINT: $dir/log/source.sums, $dir/log/copy.sums"
  sed 's/^/        /' "$dir/log/copy.sums"
  tables=$(wc -l < "$dir/log/copy.sums")
  [ "$tables" -ge 4 ] || fail "only $tables tables were compared"
  stop_server "$dir/copy"
  copy_started=no
  ok "compared: the source at restore point $point ($point_lsn, set after the backup, under locks that keep writers out)"
  ok "with the copy (the backup and the archived WAL up to that point): all $tables tables are equal"
  ok "the copy is stopped and kept in $dir/copy"
}
