#!/usr/bin/env bash
# Every check and test of the repository, cheapest first. Installs what is missing and says so.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=peers/process.bash
. "$here/peers/process.bash"
cd "$REPO_ROOT"

sections=(tools format lint build unit peers examples e2e soak demo)

usage() {
  cat <<'USAGE'
usage: deploy/test.sh [SECTION…]     without a section: all of them, in this order

  tools     install what is missing: Debian packages (apt-get, as root), Apache Kafka (Maven),
            etcd 3.7 (Go modules), Python's etcd3 (pip, in .work/)
  format    cargo fmt, gofmt
  lint      cargo clippy, warnings are errors; go vet
  build     all programs and examples
  unit      unit, property and integration tests
  peers     the real Kafka and both etcds start, serve and stop; our wire schema is etcd's
  examples  the Go, Python and Rust programs print the same against etcd and config-center
  e2e       the main job on real processes and a real Kafka
  soak      one minute of random faults around an agent
  demo      the README's first command
USAGE
}

for wanted in "$@"; do
  case $wanted in
    -h | --help) usage; exit 0 ;;
  esac
  [[ " ${sections[*]} " == *" $wanted "* ]] || { usage >&2; fail "unknown section $wanted"; }
done
(($# == 0)) || sections=("$@")

target=${CARGO_TARGET_DIR:-target}
venv=$REPO_ROOT/.work/python-etcd3
scratch=$(mktemp -d "${TMPDIR:-/tmp}/config-center-test.XXXXXX")

# The caller's settings are meant for other runs of these programs.
unset "${!ETCD_@}" "${!ETCDCTL_@}" "${!KAFKA_@}"

stop_processes() {
  local dir
  for dir in "$scratch"/*/; do
    [[ ! -f $dir/pid ]] || terminate "${dir%/}"
  done
}

# The process group of the running section: cargo and the tests under it end with the script.
section_group=

# Stops what the sections started, whatever way the script ends.
clean_up() {
  [[ -z $section_group ]] || kill -TERM -- "-$section_group" 2>/dev/null || true
  stop_processes
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- tools -------------------------------------------------------------------------------------

# Program and the Debian package that brings it.
packages=(
  cc:build-essential make:build-essential perl:perl flock:util-linux ss:iproute2 mkfs.ext4:e2fsprogs faketime:faketime
  protoc:protobuf-compiler kcat:kcat /usr/bin/etcd:etcd-server /usr/bin/etcdctl:etcd-client
  java:default-jre-headless mvn:maven python3:python3
  /usr/sbin/nginx:nginx-light /usr/sbin/logrotate:logrotate
)

# stop_service SERVICE PORT WAS_TAKEN: ends the service that a package has just started. Nobody had
# the port before, so nobody uses it.
stop_service() {
  [[ $3 == no ]] && port_taken "$2" || return 0
  echo "stopping and disabling the $1 service that its package has just started"
  if command -v systemctl >/dev/null 2>&1; then
    "${as_root[@]}" systemctl disable --now "$1"
  else
    "${as_root[@]}" service "$1" stop
  fi
}

install_packages() {
  local entry missing=()
  for entry in "${packages[@]}"; do
    command -v "${entry%%:*}" >/dev/null 2>&1 || missing+=("${entry##*:}")
  done
  ! command -v python3 >/dev/null 2>&1 || python3 -c 'import ensurepip, venv' 2>/dev/null ||
    missing+=(python3-venv)
  # protoc's own package leaves the well-known types out.
  printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";' >"$scratch/probe.proto"
  protoc --proto_path "$scratch" --descriptor_set_out /dev/null "$scratch/probe.proto" 2>/dev/null ||
    missing+=(libprotobuf-dev)
  ((${#missing[@]})) || return 0
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)

  local install=(apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}") as_root=(env)
  command -v apt-get >/dev/null 2>&1 ||
    fail "missing, and no apt-get here; install what these Debian packages hold: ${missing[*]}"
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || fail "missing programs; run as root: ${install[*]}"
    as_root=(sudo -n env)
  fi
  echo "installing Debian packages: ${missing[*]}"
  local etcd_was_taken=no nginx_was_taken=no
  ! port_taken 2379 || etcd_was_taken=yes
  ! port_taken 80 || nginx_was_taken=yes
  "${as_root[@]}" apt-get -q update >"$scratch/apt.log" 2>&1 || cat "$scratch/apt.log"
  "${as_root[@]}" DEBIAN_FRONTEND=noninteractive "${install[@]}" >"$scratch/apt.log" 2>&1 ||
    { cat "$scratch/apt.log"; fail "could not install; run as root: ${install[*]}"; }

  [[ " ${missing[*]} " != *" etcd-server "* ]] || stop_service etcd 2379 "$etcd_was_taken"
  [[ " ${missing[*]} " != *" nginx-light "* ]] || stop_service nginx 80 "$nginx_was_taken"
}

check_toolchains() {
  command -v cargo >/dev/null 2>&1 ||
    fail "cargo is not installed; get Rust 1.95 or newer with rustup or your distribution"
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt ||
    fail "rustfmt is missing; run: rustup component add rustfmt"
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy ||
    fail "clippy is missing; run: rustup component add clippy"
  # Any Go from 1.21 on fetches the toolchain that go.mod names.
  (cd deploy/peers/etcd && go version) ||
    fail "Go 1.26 (or 1.21 with toolchain downloads) is needed; install golang from your distribution's newest release or backports"
  local java_major
  java_major=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
  ((${java_major:-0} >= 17)) || fail "Kafka needs Java 17; run as root: apt-get install -y openjdk-17-jre-headless"
}

install_python_etcd3() {
  local wanted=examples/python-etcd3/requirements.txt
  ! cmp -s "$wanted" "$venv/requirements.txt" || return 0
  echo "installing Python's etcd3 into $venv"
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" ||
    fail "pip could not install $wanted; see its message above, then run: $0 tools"
  cp "$wanted" "$venv/requirements.txt"
}

section_tools() {
  install_packages
  check_toolchains
  deploy/peers/kafka/kafka.sh fetch
  deploy/peers/etcd/etcd.sh fetch --release 3.7
  deploy/peers/etcd/etcd.sh fetch --release 3.4
  install_python_etcd3
  echo "all tools are there"
}

# --- checks ------------------------------------------------------------------------------------

section_format() {
  cargo fmt --all --check
  local unformatted
  unformatted=$(gofmt -l deploy/peers/etcd deploy/bench/kv/go examples/go-clientv3)
  [[ -z $unformatted ]] || fail "not formatted, run gofmt -w on: $unformatted"
}

section_lint() {
  cargo clippy --locked --workspace --all-targets -- -D warnings
  (cd deploy/peers/etcd && go vet ./descriptors)
  (cd examples/go-clientv3 && go vet .)
  (cd deploy/bench/kv/go && go vet .)
}

section_build() {
  cargo build --locked --workspace --bins --examples
}

# integration_tests e2e|others: the integration tests of package e2e, or of all other packages, as
# arguments for cargo. Every section selects the whole workspace and narrows it by target: selected
# by package, the dependencies would be compiled once more for each other set of their features.
# So a test's name must be its alone.
integration_tests() {
  cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import collections, json, sys
tests = collections.defaultdict(list)
for package in json.load(sys.stdin)["packages"]:
    for target in package["targets"]:
        if "test" in target["kind"]:
            tests[target["name"]].append(package["name"])
for name, packages in tests.items():
    if len(packages) > 1:
        sys.exit(f"rename a test: {name} is one of each of {packages}")
    if (packages == ["e2e"]) == (sys.argv[1] == "e2e"):
        print("--test", name, sep="\n")
' "$1"
}

section_unit() {
  local tests
  tests=$(integration_tests others)
  # shellcheck disable=SC2086 # one word per line
  cargo test --locked --workspace --no-fail-fast --lib --bins $tests
  cargo test --locked --workspace --doc
}

section_e2e() {
  local tests
  tests=$(integration_tests e2e)
  # shellcheck disable=SC2086 # one word per line
  cargo test --locked --workspace --no-fail-fast $tests
}

section_soak() {
  deploy/e2e/soak --seconds 60 --debug
}

section_demo() {
  cargo demo
}

# --- peers -------------------------------------------------------------------------------------

section_peers() {
  local kafka etcd release
  kafka=$(deploy/peers/kafka/kafka.sh start --dir "$scratch/kafka" --port 0 --owner $$)
  seq 1 1000 >"$scratch/sent"
  kcat -P -b "$kafka" -t round_trip <"$scratch/sent"
  kcat -C -b "$kafka" -t round_trip -o beginning -e -q >"$scratch/received"
  cmp "$scratch/sent" "$scratch/received" || fail "Kafka returned other lines than it was given"
  deploy/peers/kafka/kafka.sh wipe --dir "$scratch/kafka"
  ! port_taken "${kafka##*:}" || fail "Kafka still listens on $kafka after its stop"
  echo "Kafka: 1000 lines there and back"

  for release in 3.4 3.7; do
    etcd=$(start_etcd "$release")
    etcdctl_37 "$etcd" put k "from $release" >/dev/null
    [[ $(etcdctl_37 "$etcd" get k --print-value-only) == "from $release" ]] ||
      fail "etcd $release did not return what was put"
    deploy/peers/etcd/etcd.sh wipe --dir "$scratch/etcd-$release"
    ! port_taken "${etcd##*:}" || fail "etcd $release still listens on $etcd after its stop"
    echo "etcd $release: put and got"
  done

  (cd deploy/peers/etcd && go run ./descriptors) >"$scratch/descriptors"
  diff "$scratch/descriptors" schemas/tests/etcd-3.7.1.txt ||
    fail "schemas/tests/etcd-3.7.1.txt is not what deploy/peers/etcd/descriptors prints (<)"
  echo "etcd's wire schema is the committed one"
}

start_etcd() {
  deploy/peers/etcd/etcd.sh start --release "$1" --dir "$scratch/etcd-$1" --port 0 --owner $$
}

etcdctl_37() {
  local endpoint=$1
  shift
  "$(deploy/peers/etcd/etcd.sh path --program etcdctl)" --endpoints "$endpoint" "$@"
}

# --- examples ----------------------------------------------------------------------------------

# start_center PORT: prints its URL once it answers a linearizable read.
start_center() {
  local url=http://127.0.0.1:$1 dir=$scratch/center-$1 peer_url
  peer_url=http://127.0.0.1:$(free_port)
  mkdir -p "$dir"
  spawn "$dir" "$(realpath "$target")/debug/config-center" --name test --data-dir "$dir/data" \
    --listen-client-urls "$url" --advertise-client-urls "$url" \
    --listen-peer-urls "$peer_url" --initial-advertise-peer-urls "$peer_url" \
    --initial-cluster "test=$peer_url"
  await_ready "$dir" 30 etcdctl_37 "$url" endpoint health
  printf '%s' "$url"
}

# example LANGUAGE [ENDPOINTS]: without endpoints the three that are built in.
example() {
  local language=$1
  export ETCD_ENDPOINTS=${2:-}
  case $language in
    go) "$scratch/go-clientv3" ;;
    python) "$venv/bin/python" examples/python-etcd3/main.py ;;
    rust) "$target/debug/example-rust" ;;
  esac
}

# Every line is expected, so that "the same" can never mean "equally wrong".
expected_output() {
  cat <<'OUTPUT'
connect succ
/ningxin/backend/logagent/config/192.168.56.1 : [{"path":"D:/project/nginx/logs/access.log","topic":"nginx_log"},{"path":"D:/project/nginx/logs/error.log","topic":"nginx_log_err"}]
connect succ
/logagent/conf/ : sample_value
OUTPUT
}

section_examples() {
  [[ -x $target/debug/config-center && -x $target/debug/example-rust ]] ||
    cargo build --locked --workspace --bin config-center --bin example-rust
  (cd examples/go-clientv3 && go build -mod=readonly -o "$scratch/go-clientv3" .)

  local etcd_37 etcd_34 center language store
  etcd_37=$(start_etcd 3.7)
  etcd_34=$(start_etcd 3.4)
  center=$(start_center "$(free_port)")
  expected_output >"$scratch/expected"
  for language in go python rust; do
    for store in "etcd 3.7=$etcd_37" "etcd 3.4=$etcd_34" "config-center=$center"; do
      check_example "$language" "${store%%=*}" "${store##*=http://}"
    done
  done

  if port_taken 2379; then
    ss -ltnp 'sport = :2379' >&2 || true
    fail "port 2379 is taken by the process above; stop it: the examples are also tested on their built-in endpoints"
  fi
  start_center 2379 >/dev/null
  for language in go python rust; do
    check_example "$language" "config-center on 2379" ""
  done
}

# check_example LANGUAGE STORE ENDPOINTS
check_example() {
  local output=$scratch/$1.out
  example "$1" "$3" >"$output" 2>"$output.err" || cat "$output.err" >&2
  diff "$scratch/expected" "$output" || fail "the $1 example printed other lines against $2"
  echo "$1 against $2: as expected"
}

# --- run ---------------------------------------------------------------------------------------

summary=()
failed=()

# run_section NAME: in a subshell, so that its `fail` and its shell settings end with it. Not to be
# called as a condition: bash would then ignore `set -e` in the whole section.
run_section() {
  local name=$1 began_s=$SECONDS verdict=passed status
  printf '\n=== %s (at %d s)\n' "$name" "$began_s"
  set +e -m
  (set -e; "section_$name") &
  section_group=$!
  set +m
  wait "$section_group"
  status=$?
  set -e
  section_group=
  if ((status)); then
    verdict=FAILED
    failed+=("$name")
  fi
  stop_processes
  summary+=("$(printf '%-10s %-8s %5d s' "$name" "$verdict" $((SECONDS - began_s)))")
}

for name in "${sections[@]}"; do
  run_section "$name"
  # Without tools or programs the sections behind can say nothing more.
  [[ " ${failed[*]} " != *" tools "* && " ${failed[*]} " != *" build "* ]] || break
done

printf '\n=== summary (%d s)\n' "$SECONDS"
printf '%s\n' "${summary[@]}"
if ((${#failed[@]})); then
  echo "FAILED: ${failed[*]}"
  exit 1
fi
echo "all passed"
