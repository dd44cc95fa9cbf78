#!/usr/bin/env bash
# Runs etcd 3.4.23's own end-to-end tests, unmodified, against config-center under the name `etcd`, and
# writes deploy/e2e/etcd-suite.md. Sources and the other programs come from Debian's packages.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../peers/process.bash
. "$here/../peers/process.bash"

usage() {
  cat <<'USAGE'
usage: deploy/e2e/etcd-suite.sh [flags]

  --against center|etcd   whose binary runs as `etcd` (center); etcd is the score to compare with
  --binary PATH           config-center (target/debug/config-center)
  --run REGEX             only tests whose name matches; the others keep their last result
  --jobs N                tests at the same time, each in a network namespace of its own (1)
  --timeout SECONDS       for one test (90): a test that hangs costs only itself
  --list                  only list the tests
  --report                only write the report from the results that are there

Each test runs in a process, a folder and, where the kernel lets us, a network namespace of its own.
Its output is kept in .work/etcd-suite/logs-SUBJECT/NAME.log.
USAGE
}

against=center
binary=
pattern=.
jobs=1
timeout_s=90
only_list=no
only_report=no
while (($#)); do
  case $1 in
    --against | --binary | --run | --jobs | --timeout)
      (($# >= 2)) || fail "$1 needs a value"
      ;;&
    --against) against=$2; shift ;;
    --binary) binary=$2; shift ;;
    --run) pattern=$2; shift ;;
    --jobs) jobs=$2; shift ;;
    --timeout) timeout_s=$2; shift ;;
    --list) only_list=yes ;;
    --report) only_report=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown flag $1" ;;
  esac
  shift
done
[[ $against == center || $against == etcd ]] || fail "--against is center or etcd, not $against"

gocode=/usr/share/gocode
package=go.etcd.io/etcd/tests/e2e
work=$REPO_ROOT/.work/etcd-suite
suite=$here/etcd-suite
results=$suite/results-$against.tsv
logs=$work/logs-$against

# Compiles the package as Debian ships it. The one symbolic link serves a dependency that still
# imports etcd under its old name; it lies in a folder of ours, in front of Debian's.
compile() {
  [[ -d $gocode/src/$package ]] ||
    fail "etcd's sources are not installed; run: apt-get install -y golang-etcd-server-dev"
  need go golang
  local built_from
  built_from=$(dpkg-query -W golang-etcd-server-dev 2>/dev/null || echo unknown)
  [[ ! -x $work/e2e.test || $(cat "$work/built-from" 2>/dev/null) != "$built_from" ]] || return 0
  say "compiling $package of $built_from"
  mkdir -p "$work/overlay/src/github.com/coreos"
  ln -sfn "$gocode/src/go.etcd.io/etcd" "$work/overlay/src/github.com/coreos/etcd"
  (cd "$gocode/src/$package" &&
    GO111MODULE=off GOFLAGS= GOPATH="$work/overlay:$gocode" go test -c -o "$work/e2e.test.partial" .) >&2 ||
    fail "the suite did not compile; see Go's message above"
  mv "$work/e2e.test.partial" "$work/e2e.test"
  printf '%s' "$built_from" >"$work/built-from"
}

# The tests look for certificates at ../../integration/fixtures and write below their folder.
prepare() {
  mkdir -p "$work/bin-$against" "$logs"
  case $against in
    etcd) binary=/usr/bin/etcd ;;
    center) binary=$(realpath -m "${binary:-${CARGO_TARGET_DIR:-$REPO_ROOT/target}/debug/config-center}") ;;
  esac
  [[ -x $binary ]] || fail "$binary is missing; run: cargo build --bin config-center"
  [[ -x /usr/bin/etcdctl ]] || fail "etcdctl is not installed; run: apt-get install -y etcd-client"
  # A copy: a build that replaces the program must not change it in the middle of the run.
  cp "$binary" "$work/bin-$against/etcd"
  ln -sfn /usr/bin/etcdctl "$work/bin-$against/etcdctl"
}

# Root makes a namespace at once, others need a user namespace; without either the tests share the
# machine's ports, which are fixed (20000 and up, 2379).
namespace=()
find_namespace() {
  if unshare --net true 2>/dev/null; then
    namespace=(unshare --net)
  elif unshare --map-root-user --net true 2>/dev/null; then
    namespace=(unshare --map-root-user --net)
  else
    say "no network namespaces here: the tests use this machine's ports from 20000 on"
    ((jobs == 1)) || fail "--jobs needs network namespaces"
  fi
}

# run_test NAME: prints one line of the results.
run_test() {
  local name=$1 log=$logs/$1.log scratch verdict=fail status=0 began message
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/etcd-suite.XXXXXX")
  mkdir -p "$scratch/tests/e2e" "$scratch/tmp"
  cp -r "$gocode/src/go.etcd.io/etcd/integration" "$scratch/integration"
  # The one file that a test reads and Debian does not ship.
  cp "$suite/etcd.conf.yml.sample" "$scratch/"
  began=$SECONDS
  # shellcheck disable=SC2016 # the inner shell expands its own arguments
  (
    cd "$scratch/tests/e2e"
    env -i PATH="$PATH" HOME="$scratch" TMPDIR="$scratch/tmp" \
      timeout --signal QUIT --kill-after 5 "$timeout_s" "${namespace[@]}" bash -c '
        [[ -z $1 ]] || ip link set lo up
        shift
        exec "$@"
      ' test "${namespace[*]}" "$work/e2e.test" -test.v -test.run "^$name\$" \
      -bin-dir "$work/bin-$against" -cert-dir ../../integration/fixtures
  ) >"$log" 2>&1 </dev/null || status=$?
  # What a failed test leaves behind would keep its namespace and folder alive.
  local pid
  for pid in $(pgrep -f -- "$scratch/tmp" || true); do
    kill -KILL "$pid" 2>/dev/null || true
  done
  message=
  # The suite's own verdict counts. Its exit code may also be that of a check for goroutines that
  # are still running, which one test alone can fail by ending too quickly.
  if grep -q "^--- PASS: $name " "$log"; then
    verdict=pass
  elif grep -q "^--- SKIP: $name " "$log"; then
    verdict=skip
    message=$(first_error "$log")
  elif grep -q 'SIGQUIT: quit' "$log" || ((status == 124 || status == 137)); then
    verdict=hang
    message="no end within $timeout_s s"
  else
    message=$(first_error "$log")
    [[ -n $message ]] || message=$(grep -v '^=== ' "$log" | tail -n 1 | cut -c 1-160)
  fi
  rm -rf "$scratch"
  printf '%s\t%s\t%d\t%s\n' "$name" "$verdict" $((SECONDS - began)) "$message"
}

# The first line that a test wrote by itself, without ports, folders and ids.
first_error() {
  grep -m 1 -E '^ +[a-z0-9_]+\.go:[0-9]+: ' "$1" | sed -E '
    s#'"$REPO_ROOT"'/##g
    s/^ +//
    s/\t/ /g
    s#(/tmp/|/var/)[^ ]*#PATH#g
    s/[0-9a-f]{16}/ID/g
    s/\|/\//g' | cut -c 1-200 || true
}

# Puts new lines in place of old ones of the same tests; the order is the suite's.
merge() {
  touch "$results"
  awk -F '\t' 'FNR == NR { new[$1] = $0; next } { old[$1] = $0 }
    END { for (name in old) if (!(name in new)) print old[name]; for (name in new) print new[name] }' \
    "$1" "$results" | sort >"$work/merged"
  mv "$work/merged" "$results"
}

count() { awk -F '\t' -v verdict="$2" '$2 == verdict { n++ } END { print n + 0 }' "$1"; }

report() {
  local file subject reasons=$suite/reasons.tsv etcd=$suite/results-etcd.tsv center=$suite/results-center.tsv
  touch "$reasons" "$etcd" "$center"
  {
    echo '# etcd'"'"'s own end-to-end tests'
    echo
    echo 'Written by `deploy/e2e/etcd-suite.sh`: the tests of etcd 3.4.23 as Debian packages them'
    echo '(`golang-etcd-server-dev`), unmodified, with config-center under the name `etcd` and Debian'"'"'s `etcdctl`.'
    echo 'Verdicts and messages are measured; the reasons are kept in `etcd-suite/reasons.tsv`.'
    echo
    echo '| subject | pass | fail | hang | skip | all |'
    echo '|---|---:|---:|---:|---:|---:|'
    for subject in etcd center; do
      file=$suite/results-$subject.tsv
      printf '| %s | %d | %d | %d | %d | %d |\n' \
        "$([[ $subject == etcd ]] && echo 'etcd 3.4.23' || echo config-center)" \
        "$(count "$file" pass)" "$(count "$file" fail)" "$(count "$file" hang)" "$(count "$file" skip)" \
        "$(wc -l <"$file")"
    done
    echo
    echo '| test | etcd 3.4.23 | config-center | first message | reason |'
    echo '|---|---|---|---|---|'
    awk -F '\t' -v OFS=' | ' '
      FILENAME == ARGV[1] { reason[$1] = $2; next }
      FILENAME == ARGV[2] { etcd[$1] = $2; seen[$1]; next }
      { center[$1] = $2; message[$1] = $4; seen[$1] }
      END {
        for (name in seen) {
          text = message[name]
          gsub(/[<>]/, "", text)
          if (text != "") text = "`" text "`"
          print "| " name, etcd[name], center[name], text, reason[name] " |"
        }
      }' "$reasons" "$etcd" "$center" | sort
  } >"$here/etcd-suite.md"
}

if [[ $only_report == yes ]]; then
  report
  exit
fi
compile
mapfile -t tests < <("$work/e2e.test" -test.list . | grep -E '^Test' | grep -E -- "$pattern" || true)
((${#tests[@]})) || fail "no test matches $pattern"
if [[ $only_list == yes ]]; then
  printf '%s\n' "${tests[@]}"
  exit
fi
prepare
find_namespace

say "${#tests[@]} tests against $against ($binary), $jobs at a time"
fresh=$work/fresh-$against.tsv
: >"$fresh"
for name in "${tests[@]}"; do
  while (($(jobs -rp | wc -l) >= jobs)); do
    wait -n || true
  done
  {
    line=$(run_test "$name")
    printf '%s\n' "$line" >>"$fresh"
    printf '%s\n' "$line" >&2
  } &
done
wait
merge "$fresh"
report
printf 'pass %d, fail %d, hang %d, skip %d of %d\n' "$(count "$fresh" pass)" "$(count "$fresh" fail)" \
  "$(count "$fresh" hang)" "$(count "$fresh" skip)" "$(wc -l <"$fresh")"
