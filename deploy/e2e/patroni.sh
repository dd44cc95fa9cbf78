#!/usr/bin/env bash
# Patroni (Debian) keeps two PostgreSQL servers on config-center, once through the v2 API (`etcd:`) and
# once through v3 (`etcd3:`), three members each: a leader is elected, the primary is killed and the
# replica takes over, the store loses its leader, restarts as a whole under a running primary and in
# the middle of a failover. Writes go on each time, and no acknowledged row is missing in the end.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../peers/process.bash
. "$here/../peers/process.bash"

usage() {
  cat <<'USAGE'
usage: deploy/e2e/patroni.sh [flags]

  --against center|etcd   the store below Patroni: config-center, or Debian's etcd 3.4 to compare (center)
  --binary PATH           config-center (target/debug/config-center)
  --api etcd|etcd3        only this one of Patroni's two clients
  --report                write deploy/e2e/patroni.md

Needs the Debian packages patroni, postgresql and python3-etcd. PostgreSQL does not run as root: called by
root, it and Patroni run as the user postgres. Ports and folders are the script's own.
USAGE
}

against=center
binary=
apis=(etcd etcd3)
report=no
while (($#)); do
  case $1 in
    --against | --binary | --api) (($# >= 2)) || fail "$1 needs a value" ;;&
    --against) against=$2; shift ;;
    --binary) binary=$2; shift ;;
    --api) apis=("$2"); shift ;;
    --report) report=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown flag $1" ;;
  esac
  shift
done
[[ $against == center || $against == etcd ]] || fail "--against is center or etcd, not $against"
binary=$(realpath -m "${binary:-${CARGO_TARGET_DIR:-$REPO_ROOT/target}/debug/config-center}")

postgres_bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
[[ -n $postgres_bin ]] || fail "PostgreSQL is not installed; run: apt-get install -y postgresql"
need patroni patroni
need curl curl
/usr/bin/python3 -c 'import etcd' 2>/dev/null || fail "run: apt-get install -y python3-etcd"

# What PostgreSQL must not do as root, another user does.
as_user=()
if ((EUID == 0)); then
  id postgres >/dev/null 2>&1 || fail "there is no user postgres"
  as_user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
psql=(psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -U postgres -At -d postgres)

scratch=$(mktemp -d "${TMPDIR:-/tmp}/patroni-test.XXXXXX")
chmod 755 "$scratch"

# kill_group DIR: the process of the folder and everything that it has started, without a last word.
kill_group() {
  local pid
  pid=$(running_pid "$1") || return 0
  # Each process is the leader of a session of its own; PostgreSQL makes another one for itself.
  kill -KILL -- "-$pid" 2>/dev/null || true
  local postmaster
  postmaster=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null || true)
  if [[ -n $postmaster ]]; then
    kill -KILL -- "-$postmaster" 2>/dev/null || kill -KILL "$postmaster" 2>/dev/null || true
  fi
  rm -f "$1/pid"
}

clean_up() {
  local dir
  for dir in "$scratch"/*/*/; do
    [[ ! -f $dir/pid ]] || kill_group "${dir%/}"
  done
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- the store ---------------------------------------------------------------------------------

# Three members: $scratch/API/store-N, with client and peer port in `ports`.
store_members=(1 2 3)

client_url() {
  local client
  read -r client _ <"$scratch/$1/store-$2/ports"
  printf 'http://127.0.0.1:%s' "$client"
}

# spawn_member API N
spawn_member() {
  local api=$1 n=$2 dir=$scratch/$1/store-$2 member client peer cluster=()
  for member in "${store_members[@]}"; do
    read -r _ peer <"$scratch/$api/store-$member/ports"
    cluster+=("m$member=http://127.0.0.1:$peer")
  done
  read -r client peer <"$dir/ports"
  client=http://127.0.0.1:$client peer=http://127.0.0.1:$peer
  local program=("$binary")
  [[ $against == center ]] || program=(env ETCD_UNSUPPORTED_ARCH=arm64 /usr/bin/etcd)
  spawn "$dir" "${program[@]}" --name "m$n" --data-dir "$dir/data" --enable-v2=true \
    --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
    --initial-cluster "$(IFS=,; echo "${cluster[*]}")"
}

# Starts all members, for the first time or again.
start_store() {
  local api=$1 n dir
  for n in "${store_members[@]}"; do
    dir=$scratch/$api/store-$n
    mkdir -p "$dir"
    [[ -f $dir/ports ]] || printf '%s %s\n' "$(free_port)" "$(free_port)" >"$dir/ports"
  done
  for n in "${store_members[@]}"; do
    spawn_member "$api" "$n"
  done
  for n in "${store_members[@]}"; do
    await_ready "$scratch/$api/store-$n" 30 curl -fsS "$(client_url "$api" "$n")/health"
  done
}

restart_store() {
  local n
  for n in "${store_members[@]}"; do
    kill_group "$scratch/$1/store-$n"
  done
  start_store "$1"
}

# Prints the number of the member that leads.
store_leader() {
  local n metrics
  for n in "${store_members[@]}"; do
    metrics=$(curl -fsS "$(client_url "$1" "$n")/metrics") || continue
    if grep -q '^etcd_server_is_leader 1' <<<"$metrics"; then
      printf '%s' "$n"
      return
    fi
  done
  return 1
}

# --- Patroni -----------------------------------------------------------------------------------

# node_ports NODE: REST and PostgreSQL.
node_ports() {
  local file=$scratch/$1/ports
  [[ -f $file ]] || printf '%s %s\n' "$(free_port)" "$(free_port)" >"$file"
  cat "$file"
}

# start_node API NAME
start_node() {
  local api=$1 node=$1/$2 dir=$scratch/$1/$2 rest port n hosts=()
  mkdir -p "$dir"
  for n in "${store_members[@]}"; do
    hosts+=("\"$(client_url "$api" "$n" | sed 's#http://##')\"")
  done
  read -r rest port <<<"$(node_ports "$node")"
  cat >"$dir/patroni.yml" <<YAML
scope: $api
name: $2
restapi: {listen: "127.0.0.1:$rest", connect_address: "127.0.0.1:$rest"}
$api: {hosts: [$(IFS=,; echo "${hosts[*]}")]}
bootstrap:
  dcs:
    ttl: 10
    loop_wait: 2
    retry_timeout: 3
    maximum_lag_on_failover: 1048576
    postgresql: {use_pg_rewind: true, parameters: {wal_keep_size: 64MB, fsync: "off", shared_buffers: 16MB}}
  initdb: [{encoding: UTF8}, data-checksums]
  pg_hba: ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
postgresql:
  listen: 127.0.0.1:$port
  connect_address: 127.0.0.1:$port
  data_dir: $dir/data
  bin_dir: $postgres_bin
  pgpass: $dir/pgpass
  authentication:
    superuser: {username: postgres, password: postgres}
    replication: {username: replicator, password: replicator}
  parameters: {unix_socket_directories: $dir}
YAML
  ((EUID != 0)) || chown -R postgres:postgres "$dir"
  spawn "$dir" "${as_user[@]}" env HOME="$dir" PATH="$PATH" LC_ALL=C.UTF-8 patroni "$dir/patroni.yml"
}

# await SECONDS WHAT COMMAND…
await() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || {
      tail -n 15 "$scratch"/*/*/server.log >&2
      fail "no $what in time; the last lines of the logs are above"
    }
    sleep 0.2
  done
}

# role NODE ROLE: Patroni's own answer to a load balancer.
role() {
  local rest
  read -r rest _ <<<"$(node_ports "$1")"
  curl -fsS --max-time 2 "http://127.0.0.1:$rest/$2"
}

sql() {
  local port
  read -r _ port <<<"$(node_ports "$1")"
  PGCONNECT_TIMEOUT=2 "${psql[@]}" -p "$port" -c "$2"
}

count_is() { [[ $(sql "$1" 'select count(*) from rows') == "$2" ]]; }

# passed API STEP
passed() {
  printf '| %s | %s | passed |\n' "$1" "$2" | tee -a "$scratch/verdicts"
}

play() {
  local api=$1
  start_store "$api"
  start_node "$api" a
  await 60 "leader with $api:" role "$api/a" primary
  passed "$api" 'a leader is elected'
  start_node "$api" b
  sql "$api/a" 'create table rows (n int primary key); insert into rows values (1)'
  await 60 "replica with $api:" role "$api/b" replica
  await 30 'first row on the replica' count_is "$api/b" 1
  passed "$api" 'a replica follows it'

  kill_group "$scratch/$api/a"
  await 60 "failover with $api:" role "$api/b" primary
  await 10 'write after the failover' sql "$api/b" 'insert into rows values (2)'
  passed "$api" 'the primary is killed: the replica takes over, writes go on'

  start_node "$api" a
  await 60 'return of the old primary' role "$api/a" replica
  await 30 'second row on the old primary' count_is "$api/a" 2
  passed "$api" 'the old primary returns as a replica, with all rows'

  local leader
  leader=$(store_leader "$api") || fail "no member of the store leads"
  kill_group "$scratch/$api/store-$leader"
  sql "$api/b" 'insert into rows values (3)'
  await 30 'third row on the replica' count_is "$api/a" 3
  # Longer than the leader key of Patroni lives: the primary has renewed it without that member.
  local until=$((SECONDS + 12))
  while ((SECONDS < until)); do
    role "$api/b" primary >/dev/null || fail "the primary stepped down when the store lost its leader"
    sleep 1
  done
  sql "$api/b" 'insert into rows values (4)'
  spawn_member "$api" "$leader"
  passed "$api" "the store's leader is killed: the primary stays, writes go on"

  restart_store "$api"
  await 30 'primary after a restart of the store' role "$api/b" primary
  await 10 'write after a restart of the store' sql "$api/b" 'insert into rows values (5)'
  passed "$api" 'all members of the store are killed and restarted: the primary goes on'

  await 30 'fifth row on the replica' count_is "$api/a" 5
  kill_group "$scratch/$api/b"
  restart_store "$api"
  await 60 'failover over a restart of the store' role "$api/a" primary
  await 10 'last write' sql "$api/a" 'insert into rows values (6)'
  count_is "$api/a" 6 || fail "an acknowledged row is missing with $api:"
  passed "$api" 'primary and store are killed together: the replica takes over, no row is missing'
}

# Both at the same time: most of it is waiting for leases to end.
players=()
for api in "${apis[@]}"; do
  mkdir -p "$scratch/$api"
  (trap - EXIT; play "$api") &
  players+=($!)
done
failed=no
for player in "${players[@]}"; do
  wait "$player" || failed=yes
done
[[ $failed == no ]] || fail "not everything passed against $against"

if [[ $report == yes ]]; then
  {
    echo '# Patroni on config-center'
    echo
    echo "Written by \`deploy/e2e/patroni.sh --report\`: Patroni $(dpkg-query -W -f '${Version}' patroni) and PostgreSQL"
    echo "$("$postgres_bin/postgres" --version | awk '{ print $3 }') of Debian, two servers each, on a config-center of three members per API."
    echo
    echo '| API | step | verdict |'
    echo '|---|---|---|'
    sort -s -t '|' -k 2,2 "$scratch/verdicts"
  } >"$here/patroni.md"
fi
echo "Patroni on $against: all passed"
