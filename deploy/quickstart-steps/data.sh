# shellcheck shell=bash disable=SC2154  # sourced by deploy/quickstart, which sets the variables
# The source's contents: pgbench's tables, and the load during the backup.

database_exists() { [ "$(sql "$port" postgres "select count(*) from pg_database where datname = '$1'")" = 1 ]; }
database_size() { sql "$port" bench "select pg_size_pretty(pg_database_size('bench'))"; }

# The database gets its name when it is complete: a half-loaded one is never taken for it.
load_data() {
  step "Data: pgbench scale $scale"
  PGOPTIONS='-c client_min_messages=warning' sql "$port" postgres 'drop database if exists bench_loading with (force)'
  if database_exists bench; then
    local there
    there=$(sql "$port" bench 'select count(*) from pgbench_branches')
    ok "is there already: scale $there, $(database_size)"
    [ "$there" = "$scale" ] || ok "--size $size would be scale $scale. HINT: --clean first"
    return
  fi
  sql "$port" postgres 'create database bench_loading'
  as_pg "$bindir/pgbench" -h "$dir/run" -p "$port" -U postgres -i -q -I dtGvp -s "$scale" bench_loading 2>&1 |
    if [ -t 1 ]; then tr '\n' '\r' | sed 's/\r/\r\x1b[K        /g'; echo; else tail -n 1; fi
  sql "$port" postgres 'alter database bench_loading rename to bench'
  ok "$(database_size)"
}

load_group=''
# A session of its own, to end all of it. It ends by itself after ten minutes even when this script is killed.
begin_load() {
  local as=()
  ! am_root || as=(runuser -u postgres --)
  setsid "${as[@]}" "$bindir/pgbench" -h "$dir/run" -p "$port" -U postgres -n -c 4 -j 1 -T 600 bench \
    > "$dir/log/pgbench.log" 2>&1 < /dev/null 9>&- &
  load_group=$!
}

end_load() {
  [ -n "$load_group" ] || return 0
  kill -TERM -- "-$load_group" 2> /dev/null || kill -TERM "$load_group" 2> /dev/null || true
  wait "$load_group" 2> /dev/null || true
  load_group=''
}

transactions() { sql "$port" bench 'select count(*) from pgbench_history'; }
transactions_above() { [ "$(transactions)" -gt "$1" ]; }

take_backup() {
  step 'Backup while pgbench runs'
  local before
  before=$(transactions)
  begin_load
  wait_for 30 'the first transactions of pgbench' transactions_above "$before"
  before=$(transactions)
  ctl backup create
  local after
  after=$(transactions)
  end_load
  [ "$after" -gt "$before" ] || fail "pgbench made no transaction during the backup. HINT: see $dir/log/pgbench.log"
  ok "pgbench committed $((after - before)) transactions meanwhile"
}
