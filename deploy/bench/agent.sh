#!/usr/bin/env bash
# The agent next to kcat, rsyslog, syslog-ng and a bare producer loop: builds, measures, writes
# deploy/bench/agent.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../peers/process.bash
. "$here/../peers/process.bash"
cd "$REPO_ROOT"

usage() {
  cat <<'USAGE'
usage: deploy/bench/agent.sh [--quick] [--only SECTION,…] [--divide N] [--no-build] [--measure-with CMD]

  --quick             small sizes, one round; prints its report, and leaves the committed one alone
  --only SECTION,…    measures only these, and keeps the last figures of the others:
                        nginx    1 GB in one file, lz4           none     the same uncompressed
                        files    10 and 1,000 files              long     lines of up to 8 KiB; stack traces
                        latency  from write to broker            reload   from put to first line
                        idle     2,000 and 20,000 quiet files    outage   60 s without the broker
  --divide N          corpora of an N-th of their size; the committed report stays alone
  --no-build          the release programs are there already
  --measure-with CMD  runs the measuring part under CMD, such as a lock that keeps the machine quiet

Needs what `deploy/test.sh tools` installs, and Debian's rsyslog and rsyslog-kafka; syslog-ng is fetched.
Data lies in .work/bench-agent of the repository.
USAGE
}

build=yes
measure_with=()
arguments=()
report=$here/agent.md
results=$here/agent.json
work=$REPO_ROOT/.work/bench-agent
while (($#)); do
  case $1 in
    --quick)
      arguments+=(--quick)
      report=$work/quick.md
      results=$work/quick.json
      ;;
    --only)
      (($# >= 2)) || fail "--only needs a value"
      arguments+=(--only "$2")
      shift
      ;;
    --divide)
      (($# >= 2)) || fail "--divide needs a value"
      arguments+=(--divide "$2")
      report=$work/divided.md
      results=$work/divided.json
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

mkdir -p "$work"
programs=$(realpath -m "${CARGO_TARGET_DIR:-target}")/release
if [[ $build == yes ]]; then
  cargo build --release --locked --workspace --bin logagent --bin agent-bench --bin producer-floor
  commit=$(git rev-parse --short HEAD)
  [[ -z $(git status --porcelain --untracked-files=no -- logagent schemas Cargo.lock) ]] ||
    commit+=" with changes"
  printf '%s' "$commit" >"$work/built-from"
fi
commit=$(cat "$work/built-from" 2>/dev/null) || fail "nobody knows what was built; leave --no-build out"
syslog_ng=$("$here/../peers/syslog-ng/syslog-ng.sh" fetch)
kafka=$("$here/../peers/kafka/kafka.sh" start --dir "$work/kafka" --port 0 --owner $$)
etcd=$("$here/../peers/etcd/etcd.sh" start --release 3.7 --dir "$work/etcd" --port 0 --owner $$)
stop_peers() {
  "$here/../peers/kafka/kafka.sh" wipe --dir "$work/kafka"
  "$here/../peers/etcd/etcd.sh" wipe --dir "$work/etcd"
}
trap stop_peers EXIT
"${measure_with[@]}" "$programs/agent-bench" "${arguments[@]}" --bootstrap "$kafka" \
  --kafka-script "$here/../peers/kafka/kafka.sh" --kafka-dir "$work/kafka" --etcd "$etcd" \
  --logagent "$programs/logagent" --floor "$programs/producer-floor" --syslog-ng "$syslog_ng" \
  --work "$work/run" --results "$results" --report "$report" --commit "$commit"
cat "$report"
