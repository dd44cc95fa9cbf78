#!/usr/bin/env bash
# Simulated fleets on config-center: builds, measures, writes deploy/bench/fleet.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../peers/process.bash
. "$here/../peers/process.bash"
cd "$REPO_ROOT"

usage() {
  cat <<'USAGE'
usage: deploy/bench/fleet.sh [--quick] [--no-build] [--measure-with CMD]

  --quick             1 and 100 hosts on one member; prints its table, and leaves deploy/bench/fleet.md alone
  --no-build          the release programs are there already
  --measure-with CMD  runs the measuring part under CMD, such as a lock that keeps the machine quiet

Up to 5,000 connections to each member: the hard limit of open files has to allow them.
Data lies in .work/bench-fleet of the repository.
USAGE
}

build=yes
measure_with=()
arguments=()
report=$here/fleet.md
work=$REPO_ROOT/.work/bench-fleet
while (($#)); do
  case $1 in
    --quick)
      arguments+=(--sizes 1,100 --members 1 --heartbeat-s 5)
      report=$work/quick.md
      ;;
    --no-build) build=no ;;
    --measure-with)
      (($# >= 2)) || fail "--measure-with needs a value"
      read -r -a measure_with <<<"$2"
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown argument $1" ;;
  esac
  shift
done

mkdir -p "$work"
programs=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release
if [[ $build == yes ]]; then
  cargo build --release --locked --bin config-center --bin fleet-bench
  commit=$(git rev-parse --short HEAD)
  [[ -z $(git status --porcelain --untracked-files=no -- config-center schemas deploy/bench/fleet Cargo.lock) ]] ||
    commit+=" with changes"
  printf '%s' "$commit" >"$work/built-from"
fi
commit=$(cat "$work/built-from" 2>/dev/null) || fail "nobody knows what was built; leave --no-build out"
ulimit -n "$(ulimit -Hn)"
"${measure_with[@]}" "$programs/fleet-bench" "${arguments[@]}" --server "$programs/config-center" \
  --work "$work" --report "$report" --commit "$commit"
cat "$report"
