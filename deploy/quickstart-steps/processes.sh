# shellcheck shell=bash disable=SC2154,SC2001  # sourced by deploy/quickstart, which sets the variables
# What runs in DIR: its owner, the agent, the servers; how they end. A number in a file is no proof that a process lives or
# is ours: program and working directory are looked at.

made_by_quickstart() { [ -f "$dir/.metal-quickstart" ]; }

# Makes DIR, or takes over one that quickstart made, and locks it.
own_dir() {
  [ ${#dir} -le 80 ] || fail "$dir is too long for a unix socket's name. HINT: a --dir of at most 80 characters"
  mkdir -p "$dir"
  if ! made_by_quickstart && [ -n "$(ls -A "$dir")" ]; then
    fail "$dir is not empty and was not made by quickstart. HINT: choose another --dir"
  fi
  lock_dir
}

# One quickstart at a time. The lock ends with this script: children that outlive it are started with 9>&-.
lock_dir() {
  exec 9>> "$dir/.metal-quickstart"
  flock -n 9 || fail "another quickstart, pid $(tail -n 1 "$dir/.metal-quickstart"), works in $dir.
HINT: wait for its end, or end it with Ctrl-C there"
  echo $$ > "$dir/.metal-quickstart"
}

# Prints the pid of the server that runs on directory $1; fails when there is none.
server_pid() {
  local pid cwd
  pid=$(head -n 1 "$1/postmaster.pid" 2> /dev/null) && [[ $pid =~ ^[0-9]+$ ]] || return 1
  [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = postgres ] || return 1
  # Another user's working directory is unreadable: then it counts as a server here.
  cwd=$(readlink "/proc/$pid/cwd" 2> /dev/null) || cwd=$1
  [ "$cwd" = "$1" ] && echo "$pid"
}

# Prints the agent's pid; fails when it does not run.
agent_pid() {
  local pid
  pid=$(cat "$dir/agent.pid" 2> /dev/null) && [[ $pid =~ ^[0-9]+$ ]] || return 1
  case $(readlink "/proc/$pid/exe" 2> /dev/null) in "$dir/bin/metal-agent"*) echo "$pid" ;; *) return 1 ;; esac
}

# Prints "PID NAME" of every server that works in DIR and of every program of DIR, whatever files say.
running_in_dir() {
  local literal link
  literal=$(sed 's/[][*?\\]/\\&/g' <<< "$dir")
  { find /proc -maxdepth 2 \( -name exe -lname "$literal/bin/metal-*" -o -name cwd -lname "$literal/*" \) || true; } 2> /dev/null |
    while read -r link; do
      link=${link%/*}
      case $(cat "$link/comm" 2> /dev/null) in postgres | metal-*) echo "${link##*/} $(cat "$link/comm")" ;; esac
    done | sort -nu
}

start_agent() {
  step 'Agent'
  local pid
  if pid=$(agent_pid) && [ "$(readlink "/proc/$pid/exe")" != "$dir/bin/metal-agent" ]; then
    ok 'a new build: the running agent is replaced, PostgreSQL runs on'
    stop_agent "$pid"
  fi
  if agent_pid > /dev/null; then
    ok "is running already, pid $(agent_pid)"
  else
    rm -f "$dir/run/address"
    setsid "$dir/bin/metal-agent" --config "$dir/agent.toml" >> "$dir/log/agent.log" 2>&1 < /dev/null 9>&- &
    pid=$!
    echo "$pid" > "$dir/agent.pid"  # at once: an interrupted start is found again
    wait_for 20 'the start of the agent' agent_answers_or_ended "$pid"
    [ -s "$dir/run/address" ] || fail "the agent did not start: $(tail -n 1 "$dir/log/agent.log")
HINT: see $dir/log/agent.log"
  fi
  ok "metal-agent serves gRPC on $(cat "$dir/run/address") and $dir/run/agent.sock"
}
agent_answers_or_ended() { [ -s "$dir/run/address" ] || ! kill -0 "$1"; }

stop_agent() {  # PostgreSQL runs on
  kill "$1"
  wait_for 30 'the end of the agent' has_ended "$1"
  rm -f "$dir/agent.pid"
}
has_ended() { ! kill -0 "$1"; }

# Stops the server on directory $1, when one runs there.
stop_server() {
  server_pid "$1" > /dev/null || return 0
  (as_pg "$bindir/pg_ctl" -D "$1" -m fast -w -t 120 stop) > /dev/null 2>&1 ||
    fail "PostgreSQL on $1, pid $(server_pid "$1"), did not stop; nothing was removed. HINT: see $dir/log"
}

stop_all() {
  local pid was_running=no
  [ -d "$dir" ] || { echo "nothing is running: $dir does not exist"; return; }
  made_by_quickstart || fail "$dir was not made by quickstart. HINT: --dir DIR, the same as when it was started"
  lock_dir
  bindir=$(cat "$dir/bindir" 2> /dev/null) || bindir=/nowhere
  stop_server "$dir/copy"
  if pid=$(agent_pid); then
    ctl pg stop --escalate > /dev/null ||
      fail "PostgreSQL did not stop; it and the agent run on, nothing was removed. HINT: see $dir/log"
    stop_agent "$pid"
    echo "PostgreSQL and the agent are stopped; everything is kept in $dir"
    was_running=yes
  fi
  if server_pid "$dir/data" > /dev/null; then
    stop_server "$dir/data"
    echo "PostgreSQL is stopped (no agent was running)"
  elif [ $was_running = no ]; then
    echo "nothing is running in $dir"
  fi
}

clean_all() {
  local rest
  [ -d "$dir" ] || { echo "nothing to remove: $dir does not exist"; return; }
  made_by_quickstart || fail "$dir was not made by quickstart. HINT: remove it by hand if you mean it"
  stop_all
  rest=$(running_in_dir)
  [ -z "$rest" ] || fail "these still work in $dir, nothing was removed: $(paste -sd, <<< "$rest")
HINT: end them, by pid"
  rm -rf "$dir"
  echo "removed $dir"
}

# At every end: what this script started for itself ends with it.
leave() {
  local code=$?  # 2: usage; above 128: a signal
  trap '' HUP INT TERM
  trap - EXIT
  set +e
  end_load
  [ "$copy_started" = no ] || (stop_server "$dir/copy")
  if [ "$code" -ge 128 ]; then
    printf '\nquickstart: interrupted\n' >&2
  elif [ "$code" -ne 0 ] && [ "$explained" = no ]; then
    printf '\nquickstart: a command failed, exit code %s. HINT: see above, and %s/log\n' "$code" "$dir" >&2
  fi
  if [ "$code" -ne 0 ] && [ "$action" = run ] && [ -n "$dir" ] && agent_pid > /dev/null; then
    printf 'The agent and PostgreSQL run on. HINT: run it again, or with --stop or --clean\n' >&2
  fi
  exit "$code"
}
