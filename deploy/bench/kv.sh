#!/usr/bin/env bash
# The store next to etcd: builds everything, measures, writes deploy/bench/kv.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../peers/process.bash
. "$here/../peers/process.bash"
cd "$REPO_ROOT"

usage() {
  cat <<'USAGE'
usage: deploy/bench/kv.sh [--quick] [--only SECTION,…] [--no-build] [--measure-with CMD]

  --quick             about a minute; prints its table, and leaves deploy/bench/kv.md alone
  --only SECTIONS     put-go, put-lean, read, txn, members, failover, watch, million, growth; the
                      others keep their last figures; with --quick short and rough
  --no-build          the release programs are there already
  --measure-with CMD  runs the measuring part under CMD, such as a lock that keeps the machine quiet

Needs what `deploy/test.sh tools` installs. Data folders lie in .work/bench-kv of the repository.
USAGE
}

build=yes
measure_with=()
arguments=()
report=$here/kv.md
results=$here/kv.json
while (($#)); do
  case $1 in
    --quick) arguments+=(--quick) report= ;;
    --only)
      (($# >= 2)) || fail "--only needs a value"
      arguments+=(--only "$2")
      shift
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

work=$REPO_ROOT/.work/bench-kv
mkdir -p "$work"
programs=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release
if [[ $build == yes ]]; then
  cargo build --release --locked --bin config-center --bin kv-bench --bin kv-floor --bin kv-load
  (cd "$here/kv/go" && go build -mod=readonly -trimpath -o "$work/kv-go" .)
  commit=$(git rev-parse --short HEAD)
  [[ -z $(git status --porcelain --untracked-files=no -- config-center schemas Cargo.lock) ]] ||
    commit+=" with changes"
  printf '%s' "$commit" >"$work/built-from"
fi
[[ -n $report ]] || { report=$work/quick.md results=$work/quick.json; }

commit=$(cat "$work/built-from" 2>/dev/null) || fail "nobody knows what was built; leave --no-build out"
"${measure_with[@]}" "$programs/kv-bench" "${arguments[@]}" \
  --center "$programs/config-center" --floor "$programs/kv-floor" --lean "$programs/kv-load" \
  --go "$work/kv-go" \
  --etcd-37 "$("$here/../peers/etcd/etcd.sh" path --release 3.7)" \
  --etcd-34 "$("$here/../peers/etcd/etcd.sh" path --release 3.4)" \
  --work "$work" --results "$results" --report "$report" --commit "$commit"
cat "$report"
