#!/usr/bin/env bash
# One real etcd member, the oracle that config-center is compared with. Loopback only.
#   3.7  etcd, etcdctl and etcdutl 3.7.1, built from the Go module in this folder into a cache folder
#   3.4  Debian's etcd-server and etcd-client (3.4.23), with the v2 API on
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../process.bash
. "$here/../process.bash"

usage() {
  cat <<'USAGE'
usage: etcd.sh COMMAND [flags] [-- ETCD FLAGS…]

  start     start and wait until it answers a linearizable read; prints http://HOST:PORT
  stop      stop it; the data stays, the next start serves it again
  wipe      stop it and delete its folder
  status    prints "running http://HOST:PORT pid N" or "stopped" (exit 1)
  address   prints http://HOST:PORT of the running member
  logs      prints the member's log
  fetch     only build (3.7) or look for (3.4) the programs
  path      prints the path of a program: etcd.sh path --program etcdctl

flags, and the environment variables behind them:
  --release 3.7|3.4   ETCD_PEER_RELEASE     (3.7)
  --dir DIR           ETCD_PEER_DIR         data folder (.work/peers/etcd-RELEASE of the repository)
  --port N            ETCD_PEER_PORT        client port (2379; 0 takes a free one)
  --peer-port N       ETCD_PEER_PEER_PORT   peer port   (0: takes a free one)
  --owner PID         stop and wipe when process PID has ended
  --program NAME      etcd, etcdctl or (3.7) etcdutl, for "path" (etcd)

A start on a folder whose member runs prints its address and changes nothing.
USAGE
}

release=${ETCD_PEER_RELEASE:-3.7}
dir=${ETCD_PEER_DIR:-}
port=${ETCD_PEER_PORT:-2379}
peer_port=${ETCD_PEER_PEER_PORT:-0}
owner=
program=etcd
etcd_flags=()

command=${1:-}
[[ -n $command ]] || { usage >&2; exit 2; }
shift
while (($#)); do
  case $1 in
    --release | --dir | --port | --peer-port | --owner | --program)
      (($# >= 2)) || fail "$1 needs a value"
      ;;&
    --release) release=$2 ;;
    --dir) dir=$2 ;;
    --port) port=$2 ;;
    --peer-port) peer_port=$2 ;;
    --owner) owner=$2 ;;
    --program) program=$2 ;;
    --)
      shift
      etcd_flags=("$@")
      break
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown flag $1" ;;
  esac
  shift 2
done
dir=${dir:-$REPO_ROOT/.work/peers/etcd-$release}
[[ $dir == /* ]] || dir=$PWD/$dir

case $release in
  3.7) programs=$CACHE_DIR/etcd-3.7.1 ;;
  3.4) programs=/usr/bin ;;
  *) fail "--release is 3.7 or 3.4, not $release" ;;
esac

fetch() {
  if [[ $release == 3.4 ]]; then
    [[ -x $programs/etcd && -x $programs/etcdctl ]] ||
      fail "etcd 3.4 is not installed; run: apt-get install -y etcd-server etcd-client"
    return
  fi
  ! is_built || return 0
  need go golang
  mkdir -p "$programs"
  hold_lock "$CACHE_DIR/etcd.lock"
  ! is_built || return 0
  say "building etcd 3.7.1 and its tools from Go modules into $programs (one or two minutes, once)"
  build etcd go.etcd.io/etcd/server/v3
  build etcdctl go.etcd.io/etcd/etcdctl/v3
  build etcdutl go.etcd.io/etcd/etcdutl/v3
}

is_built() {
  [[ -x $programs/etcd && -x $programs/etcdctl && -x $programs/etcdutl ]]
}

# Renamed into place only when whole: an interrupted build leaves nothing that looks built.
build() {
  (cd "$here" && go build -mod=readonly -trimpath -o "$programs/$1.partial" "$2") >&2 ||
    fail "building $1 failed; see Go's message above, then run: $0 fetch"
  mv "$programs/$1.partial" "$programs/$1"
}

# The caller's ETCD_* and ETCDCTL_* variables are meant for config-center; keep them out.
clean_env() {
  env -i PATH="$PATH" HOME="$HOME" ETCD_UNSUPPORTED_ARCH="$(go_arch)" "$@"
}

go_arch() {
  case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) uname -m ;;
  esac
}

serves() {
  clean_env "$programs/etcdctl" --endpoints "http://127.0.0.1:$port" endpoint health
}

start() {
  fetch
  mkdir -p "$dir"
  hold_lock "$dir/lock"
  if running_pid "$dir" >/dev/null && [[ -f $dir/address ]]; then
    cat "$dir/address"
    return
  fi
  terminate "$dir"
  [[ $port != 0 ]] || port=$(free_port)
  [[ $peer_port != 0 ]] || peer_port=$(free_port)
  ! port_taken "$port" || fail "port $port is taken by another process; choose one with --port"
  local client_url=http://127.0.0.1:$port peer_url=http://127.0.0.1:$peer_port
  # 3.7 no longer knows the flag; 3.4 is here for its v2 API.
  [[ $release != 3.4 ]] || etcd_flags=(--enable-v2=true "${etcd_flags[@]}")
  : >"$dir/server.log"
  spawn "$dir" env -i PATH="$PATH" HOME="$HOME" ETCD_UNSUPPORTED_ARCH="$(go_arch)" \
    "$programs/etcd" --name peer --data-dir "$dir/data" \
    --listen-client-urls "$client_url" --advertise-client-urls "$client_url" \
    --listen-peer-urls "$peer_url" --initial-advertise-peer-urls "$peer_url" \
    --initial-cluster "peer=$peer_url" "${etcd_flags[@]}"
  await_ready "$dir" 60 serves
  [[ -z $owner ]] || stop_with_owner "$here/etcd.sh" "$dir" "$owner"
  printf '%s\n' "$client_url" | tee "$dir/address"
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
    running_pid "$dir" >/dev/null || fail "no member runs in $dir"
    cat "$dir/address"
    ;;
  logs)
    [[ -f $dir/server.log ]] || fail "no log in $dir"
    cat "$dir/server.log"
    ;;
  path)
    [[ $program == etcd || $program == etcdctl || $program-$release == etcdutl-3.7 ]] ||
      fail "--program is etcd, etcdctl or, of 3.7, etcdutl"
    fetch
    printf '%s\n' "$programs/$program"
    ;;
  -h | --help | help) usage ;;
  *) usage >&2; fail "unknown command $command" ;;
esac
