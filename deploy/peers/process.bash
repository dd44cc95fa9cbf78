# Sourced by the peer scripts: keeps one background process per folder.
#
# Knows pid files, free ports and deadlines; must not know what the process is. A folder holds `pid`
# (pid and kernel start time, so that a reused pid is never mistaken for ours), `address` (written
# only once the peer serves), `server.log` and whatever the peer stores.

REPO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Where the peer scripts keep what they download or build, shared by all work trees.
# shellcheck disable=SC2034 # read by the scripts that source this file
CACHE_DIR=${CONFIG_CENTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/config-center}

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$(basename "$0"): $*"
  exit 1
}

# need PROGRAM PACKAGE: the message is the command that repairs it.
need() {
  command -v "$1" >/dev/null 2>&1 || fail "$1 is not installed; run: apt-get install -y $2"
}

# Kernel start time of a live process; nothing for a dead one or a zombie.
process_birth() {
  local stat
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
  # The command name may hold spaces: cut behind its closing parenthesis.
  local fields
  read -r -a fields <<<"${stat##*) }"
  [[ ${fields[0]} == Z ]] || printf '%s' "${fields[19]}"
}

# Prints the pid of the folder's process, fails when it is not running.
running_pid() {
  local pid birth
  [[ -f $1/pid ]] || return 1
  read -r pid birth <"$1/pid" || return 1
  [[ -n $birth && $(process_birth "$pid") == "$birth" ]] || return 1
  printf '%s' "$pid"
}

# spawn DIR COMMAND…: own session, so that a Ctrl-C of the caller's terminal does not reach it, and
# no descriptor of the caller, so that a reader of the caller's output sees its end.
spawn() {
  local dir=$1 pid
  shift
  # setsid may fork when it is a group leader; exec'ing it from a background subshell, it is not.
  (cd "$dir" && exec setsid "$@") </dev/null >>"$dir/server.log" 2>&1 9>&- &
  pid=$!
  disown "$pid"
  printf '%s %s\n' "$pid" "$(process_birth "$pid")" >"$dir/pid"
}

# terminate DIR: asks, waits, and only then kills.
terminate() {
  local dir=$1 pid deadline
  rm -f "$dir/address"
  if pid=$(running_pid "$dir"); then
    kill -TERM "$pid" 2>/dev/null || true
    # A stopped process (fault tests) takes the signal only when it runs again.
    kill -CONT "$pid" 2>/dev/null || true
    deadline=$((SECONDS + 30))
    while running_pid "$dir" >/dev/null; do
      if ((SECONDS >= deadline)); then
        say "pid $pid did not stop within 30 s, killing it"
        kill -KILL "$pid" 2>/dev/null || true
        deadline=$((SECONDS + 10))
      fi
      sleep 0.1
    done
  fi
  rm -f "$dir/pid"
}

# Deletes only a folder that a start has marked with its lock file.
wipe_folder() {
  [[ -d $1 ]] || return 0
  [[ -f $1/lock ]] || fail "$1 does not look like a peer's folder; nothing deleted"
  rm -rf "$1"
}

# await_ready DIR SECONDS COMMAND…: until the command succeeds; fails at once if the process died.
await_ready() {
  local dir=$1 limit_s=$2 deadline
  shift 2
  deadline=$((SECONDS + limit_s))
  until "$@" >/dev/null 2>&1; do
    if ! running_pid "$dir" >/dev/null; then
      tail -n 20 "$dir/server.log" >&2
      rm -f "$dir/pid"
      fail "the process ended before it served; its last log lines are above ($dir/server.log)"
    fi
    if ((SECONDS >= deadline)); then
      tail -n 20 "$dir/server.log" >&2
      terminate "$dir"
      fail "not serving after $limit_s s; its last log lines are above ($dir/server.log)"
    fi
    sleep 0.1
  done
}

# stop_with_owner SCRIPT DIR OWNER: a background watch that wipes the peer once its owner is gone,
# so that a test that was killed leaves no broker behind.
stop_with_owner() {
  local script=$1 dir=$2 owner=$3 birth
  birth=$(process_birth "$owner")
  [[ -n $birth ]] || fail "--owner $owner: no such process"
  # shellcheck disable=SC2016 # the inner shell expands its own arguments
  setsid bash -c '
    . "$1"
    while [[ -f $3/pid ]]; do
      if [[ $(process_birth "$4") != "$5" ]]; then exec "$2" wipe --dir "$3"; fi
      sleep 1
    done
  ' owner-watch "$REPO_ROOT/deploy/peers/process.bash" "$script" "$dir" "$owner" "$birth" \
    </dev/null >/dev/null 2>&1 9>&- &
  disown $!
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A free port below the kernel's ephemeral range, so that no outgoing connection takes it meanwhile.
free_port() {
  local port
  while :; do
    port=$((20000 + (RANDOM << 15 | RANDOM) % 12000))
    port_taken "$port" || break
  done
  printf '%s' "$port"
}

# hold_lock FILE: one starter at a time; descriptor 9 stays open until the script ends.
hold_lock() {
  exec 9>"$1"
  flock -w 900 9 || fail "another start holds $1"
}
