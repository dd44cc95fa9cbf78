#!/usr/bin/env bash
# Runs the tests that two client libraries bring with them against config-center or a real etcd, and
# writes deploy/e2e/client-suites.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../peers/process.bash
. "$here/../peers/process.bash"

usage() {
  cat <<'USAGE'
usage: deploy/e2e/client-suites.sh [--against center|etcd] [--suite python-etcd3|etcd-client]…

  --against SUBJECT   config-center (target/debug/config-center), or etcd 3.7.1 to compare with (center)
  --suite NAME        python-etcd3: the tests in the source package of etcd3 0.12.0 (PyPI)
                      etcd-client: the tests in the package of etcd-client 0.21.1 (crates.io)
                      may be repeated; without it both

The suites want the ports 2379 and 2380: each runs in a network namespace with a server of its own.
USAGE
}

against=center
suites=()
inside=
while (($#)); do
  case $1 in
    --against | --suite | --inside) (($# >= 2)) || fail "$1 needs a value" ;;&
    --against) against=$2 ;;
    --suite) suites+=("$2") ;;
    # Set by this script when it calls itself inside of the namespace.
    --inside) inside=$2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown flag $1" ;;
  esac
  shift 2
done
((${#suites[@]})) || suites=(python-etcd3 etcd-client)
work=$REPO_ROOT/.work/client-suites
results=$here/client-suites
python_package=etcd3-0.12.0
rust_package=etcd-client-0.21.1

prepare_python_etcd3() {
  [[ ! -f $work/python/complete ]] || return 0
  say "installing $python_package with its tests into $work"
  rm -rf "$work/python"
  python3 -m venv "$work/python/venv"
  # The library's generated code wants an old protobuf, its tests an old tenacity.
  "$work/python/venv/bin/pip" install --quiet --disable-pip-version-check \
    -r <(grep -v '^tenacity=' "$REPO_ROOT/examples/python-etcd3/requirements.txt") \
    pytest pytest-timeout 'hypothesis<6' 'tenacity<7' mock
  (cd "$work/python" &&
    "$work/python/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
      "${python_package/-/==}" && tar xzf "$python_package.tar.gz")
  touch "$work/python/complete"
}

prepare_etcd_client() {
  [[ ! -f $work/rust/complete ]] || return 0
  need protoc protobuf-compiler
  cargo fetch --locked --manifest-path "$REPO_ROOT/Cargo.toml"
  local source
  source=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "$rust_package" | head -n 1)
  [[ -n $source ]] || fail "cargo fetch brought no $rust_package"
  say "building the tests of $rust_package in $work"
  rm -rf "$work/rust"
  mkdir -p "$work"
  cp -r "$source" "$work/rust"
  # A workspace of its own.
  printf '\n[workspace]\n' >>"$work/rust/Cargo.toml"
  (cd "$work/rust" && cargo test --no-run)
  touch "$work/rust/complete"
}

start_server() {
  local dir=$work/server program
  rm -rf "$dir"
  mkdir -p "$dir"
  case $against in
    center) program=$(realpath -m "${CARGO_TARGET_DIR:-$REPO_ROOT/target}/debug/config-center") ;;
    etcd) program=$("$here/../peers/etcd/etcd.sh" path) ;;
  esac
  [[ -x $program ]] || fail "$program is missing"
  # What the suites ask for: a short life of tokens, and pages small enough to be cut.
  spawn "$dir" "$program" --name default --data-dir "$dir/data" --auth-token-ttl 2 \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://localhost:2379
  await_ready "$dir" 30 "$("$here/../peers/etcd/etcd.sh" path --program etcdctl)" endpoint health
}

# Prints NAME<TAB>pass|fail|skip.
run_python_etcd3() {
  PATH=$(dirname "$("$here/../peers/etcd/etcd.sh" path --program etcdctl)"):$PATH
  (cd "$work/python/$python_package" &&
    PYTHON_ETCD_HTTP_URL=http://127.0.0.1:2379 TEST_ETCD_VERSION=v3.4.0 "$work/python/venv/bin/python" \
      -m pytest -rA --timeout 60 -p no:cacheprovider tests) >"$work/python-etcd3-$against.log" 2>&1 || true
  sed -n -E 's/^(PASSED|FAILED|ERROR|SKIPPED) tests.*::([a-zA-Z0-9_]+).*$/\2\t\1/p' \
    "$work/python-etcd3-$against.log" |
    sed -e 's/PASSED/pass/' -e 's/FAILED/fail/' -e 's/ERROR/fail/' -e 's/SKIPPED/skip/' | sort -u
}

run_etcd_client() {
  # The user that the tests of authentication expect. What is ignored wants etcd 3.7, and one test
  # a cluster to which somebody adds a member by hand.
  local etcdctl
  etcdctl=$("$here/../peers/etcd/etcd.sh" path --program etcdctl)
  "$etcdctl" user add root:rootpwd >/dev/null
  "$etcdctl" user grant-role root root >/dev/null
  (cd "$work/rust" && timeout 300 cargo test --offline --no-fail-fast --tests -- \
    --test-threads 1 --include-ignored --skip test_cluster) \
    >"$work/etcd-client-$against.log" 2>&1 || true
  sed -n -E 's/^test ([a-z0-9_:]+)[^.]* \.\.\. (ok|FAILED|ignored).*$/\1\t\2/p' \
    "$work/etcd-client-$against.log" |
    sed -e 's/ok$/pass/' -e 's/FAILED$/fail/' -e 's/ignored$/skip/' | sort -u
}

report() {
  local suite file
  {
    echo '# Client libraries'"'"' own tests'
    echo
    echo 'Written by `deploy/e2e/client-suites.sh`: the tests that come with the packages, unmodified, against one'
    echo 'member of config-center and one of etcd 3.7.1.'
    echo
    echo '| suite | test | etcd 3.7.1 | config-center |'
    echo '|---|---|---|---|'
    for suite in python-etcd3 etcd-client; do
      touch "$results/$suite-etcd.tsv" "$results/$suite-center.tsv"
      # Not run yet: no line is better than a line of zeros.
      [[ -s $results/$suite-etcd.tsv || -s $results/$suite-center.tsv ]] || continue
      for file in etcd center; do
        printf '%s: %d pass, %d fail, %d skip\n' "$file" \
          "$(grep -c 'pass$' "$results/$suite-$file.tsv")" \
          "$(grep -c 'fail$' "$results/$suite-$file.tsv")" \
          "$(grep -c 'skip$' "$results/$suite-$file.tsv")"
      done | awk -v suite="$suite" '
        /^etcd/ { sub(/^etcd: /, ""); etcd = $0 } /^center/ { sub(/^center: /, ""); center = $0 }
        END { print "| " suite " | **all** | " etcd " | " center " |" }'
      join -t $'\t' -a 1 -a 2 -e '' -o 0,1.2,2.2 "$results/$suite-etcd.tsv" "$results/$suite-center.tsv" |
        awk -F '\t' -v suite="$suite" '$2 != "pass" || $3 != "pass" { print "| " suite " | " $1 " | " $2 " | " $3 " |" }'
    done
    echo
    echo 'Only tests are listed that do not pass on both.'
  } >"$here/client-suites.md"
}

if [[ -n $inside ]]; then
  ip link set lo up
  trap 'terminate "$work/server"' EXIT
  start_server
  mkdir -p "$results"
  "run_${inside//-/_}" >"$results/$inside-$against.tsv"
  grep -q . "$results/$inside-$against.tsv" ||
    fail "$inside ran no test; see $work/$inside-$against.log"
  exit
fi

for suite in "${suites[@]}"; do
  declare -F "prepare_${suite//-/_}" >/dev/null || fail "unknown suite $suite"
  "prepare_${suite//-/_}"
  unshare --net "$0" --against "$against" --inside "$suite"
done
report
sed -n '/^| suite/,$p' "$here/client-suites.md"
