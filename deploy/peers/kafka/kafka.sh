#!/usr/bin/env bash
# One Apache Kafka broker (KRaft, broker and controller in one process) for tests and demos.
# Loopback only, nothing global: jars in a cache folder, data in a folder of its own.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../process.bash
. "$here/../process.bash"

usage() {
  cat <<'USAGE'
usage: kafka.sh COMMAND [flags]

  start     start and wait until the broker answers metadata requests; prints HOST:PORT
  stop      stop it; the data stays, the next start serves it again
  wipe      stop it and delete its folder
  status    prints "running HOST:PORT pid N" or "stopped" (exit 1)
  address   prints HOST:PORT of the running broker
  logs      prints the broker's log
  fetch     only download the jars (Maven) into the cache

flags, and the environment variables behind them:
  --dir DIR               KAFKA_DIR              data folder   (.work/peers/kafka of the repository)
  --port N                KAFKA_PORT             listener      (9092; 0 takes a free one)
  --controller-port N     KAFKA_CONTROLLER_PORT  controller    (0: takes a free one)
  --set KEY=VALUE         one more broker property; may be repeated
  --owner PID             stop and wipe when process PID has ended

A start on a folder whose broker runs prints its address and changes nothing.
Topics are created on first use, with one partition.
USAGE
}

version=4.3.1
libs=$CACHE_DIR/kafka-$version
dir=${KAFKA_DIR:-$REPO_ROOT/.work/peers/kafka}
port=${KAFKA_PORT:-9092}
controller_port=${KAFKA_CONTROLLER_PORT:-0}
owner=
properties=()

command=${1:-}
[[ -n $command ]] || { usage >&2; exit 2; }
shift
while (($#)); do
  case $1 in
    --dir | --port | --controller-port | --set | --owner)
      (($# >= 2)) || fail "$1 needs a value"
      ;;&
    --dir) dir=$2 ;;
    --port) port=$2 ;;
    --controller-port) controller_port=$2 ;;
    --set) properties+=("$2") ;;
    --owner) owner=$2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown flag $1" ;;
  esac
  shift 2
done
[[ $dir == /* ]] || dir=$PWD/$dir

fetch() {
  [[ -f $libs/complete ]] && return
  need mvn 'maven'
  mkdir -p "$CACHE_DIR"
  hold_lock "$CACHE_DIR/kafka.lock"
  [[ -f $libs/complete ]] && return
  say "fetching Apache Kafka $version by Maven into $libs (about 55 MB, once)"
  local partial=$libs.partial
  rm -rf "$partial" "$libs"
  mvn -q -B -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -Dkafka.version="$version" -DoutputDirectory="$partial" >&2 ||
    fail "Maven could not fetch the jars; see its message above, then run: $0 fetch"
  touch "$partial/complete"
  mv "$partial" "$libs"
}

write_properties() {
  cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/data
auto.create.topics.enable=true
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
  ((${#properties[@]} == 0)) || printf '%s\n' "${properties[@]}" >>"$dir/server.properties"
}

# A broker that is fenced lists itself in no metadata answer: "port open" would be too early.
serves() {
  if command -v kcat >/dev/null 2>&1; then
    kcat -L -m 5 -b "127.0.0.1:$port" 2>/dev/null | grep -q "broker 1 at 127.0.0.1:$port"
  else
    java -Xmx128m -cp "$libs/*" org.apache.kafka.tools.TopicCommand \
      --bootstrap-server "127.0.0.1:$port" --list
  fi
}

start() {
  need java 'openjdk-17-jre-headless'
  fetch
  mkdir -p "$dir"
  hold_lock "$dir/lock"
  if running_pid "$dir" >/dev/null && [[ -f $dir/address ]]; then
    cat "$dir/address"
    return
  fi
  terminate "$dir"
  [[ $port != 0 ]] || port=$(free_port)
  [[ $controller_port != 0 ]] || controller_port=$(free_port)
  ! port_taken "$port" || fail "port $port is taken by another process; choose one with --port"
  write_properties
  : >"$dir/server.log"
  if [[ ! -f $dir/data/meta.properties ]]; then
    # A cluster id is 16 random bytes in URL-safe base64.
    local cluster_id
    cluster_id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c 1-22)
    java -Xmx128m -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$libs/*" \
      kafka.tools.StorageTool format -t "$cluster_id" -c "$dir/server.properties" \
      >>"$dir/server.log" 2>&1 || { cat "$dir/server.log" >&2; fail "formatting $dir/data failed"; }
  fi
  spawn "$dir" java -Xmx512m -Dlog4j2.configurationFile="$here/log4j2.properties" \
    -cp "$libs/*" kafka.Kafka "$dir/server.properties"
  await_ready "$dir" 60 serves
  [[ -z $owner ]] || stop_with_owner "$here/kafka.sh" "$dir" "$owner"
  printf '127.0.0.1:%s\n' "$port" | tee "$dir/address"
}

case $command in
  start) start ;;
  fetch) fetch ;;
  stop) terminate "$dir" ;;
  wipe)
    terminate "$dir"
    wipe_folder "$dir"
    ;;
  status)
    if pid=$(running_pid "$dir") && [[ -f $dir/address ]]; then
      printf 'running %s pid %s\n' "$(cat "$dir/address")" "$pid"
    else
      echo stopped
      exit 1
    fi
    ;;
  address)
    running_pid "$dir" >/dev/null || fail "no broker runs in $dir"
    cat "$dir/address"
    ;;
  logs)
    [[ -f $dir/server.log ]] || fail "no log in $dir"
    cat "$dir/server.log"
    ;;
  -h | --help | help) usage ;;
  *) usage >&2; fail "unknown command $command" ;;
esac
