#!/usr/bin/env bash
# The agent next to kcat, rsyslog and a bare producer loop: builds, measures, writes deploy/bench/agent.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../peers/process.bash
. "$here/../peers/process.bash"
cd "$REPO_ROOT"

usage() {
  cat <<'USAGE'
usage: deploy/bench/agent.sh [--quick] [--no-build] [--measure-with CMD]

  --quick             200,000 lines, one round; prints its table, and leaves deploy/bench/agent.md alone
  --no-build          the release programs are there already
  --measure-with CMD  runs the measuring part under CMD, such as a lock that keeps the machine quiet

Needs what `deploy/test.sh tools` installs, and Debian's rsyslog and rsyslog-kafka.
Data lies in .work/bench-agent of the repository.
USAGE
}

build=yes
measure_with=()
arguments=()
report=$here/agent.md
work=$REPO_ROOT/.work/bench-agent
while (($#)); do
  case $1 in
    --quick)
      arguments+=(--lines 200000 --rounds 1 --compressions lz4)
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
  cargo build --release --locked --bin logagent --bin agent-bench --bin producer-floor
  commit=$(git rev-parse --short HEAD)
  [[ -z $(git status --porcelain --untracked-files=no -- logagent schemas Cargo.lock) ]] ||
    commit+=" with changes"
  printf '%s' "$commit" >"$work/built-from"
fi
commit=$(cat "$work/built-from" 2>/dev/null) || fail "nobody knows what was built; leave --no-build out"
kafka=$("$here/../peers/kafka/kafka.sh" start --dir "$work/kafka" --port 0 --owner $$)
etcd=$("$here/../peers/etcd/etcd.sh" start --release 3.7 --dir "$work/etcd" --port 0 --owner $$)
stop_peers() {
  "$here/../peers/kafka/kafka.sh" wipe --dir "$work/kafka"
  "$here/../peers/etcd/etcd.sh" wipe --dir "$work/etcd"
}
trap stop_peers EXIT
"${measure_with[@]}" "$programs/agent-bench" "${arguments[@]}" --bootstrap "$kafka" --etcd "$etcd" \
  --etcdctl "$("$here/../peers/etcd/etcd.sh" path --program etcdctl)" \
  --logagent "$programs/logagent" --floor "$programs/producer-floor" \
  --work "$work" --report "$report" --commit "$commit"
cat "$report"
