#!/usr/bin/env bash
# Debian's syslog-ng with its Kafka destination, unpacked into a cache folder: its package and rsyslog's
# refuse to be installed together. It is only a program to measure against; nothing is started here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../process.bash
. "$here/../process.bash"

usage() {
  cat <<'USAGE'
usage: syslog-ng.sh fetch    downloads the packages (apt-get download), unpacks them, prints the folder

The program is usr/sbin/syslog-ng of that folder; LD_LIBRARY_PATH must name usr/lib/syslog-ng and
libraries, and --module-path usr/lib/syslog-ng/3.38.
USAGE
}

packages=(syslog-ng-core syslog-ng-mod-rdkafka libivykis0 libnet1 libwrap0 libpcre3)
folder=$CACHE_DIR/syslog-ng

fetch() {
  if [[ ! -f $folder/complete ]]; then
    need dpkg dpkg
    mkdir -p "$CACHE_DIR"
    hold_lock "$CACHE_DIR/syslog-ng.lock"
    local partial=$folder.partial package
    rm -rf "$partial" "$folder"
    mkdir -p "$partial/packages" "$partial/libraries"
    (cd "$partial/packages" && apt-get -q download "${packages[@]}" >download.log 2>&1) ||
      { cat "$partial/packages/download.log" >&2; fail "apt-get could not download ${packages[*]}"; }
    for package in "$partial"/packages/*.deb; do
      dpkg -x "$package" "$partial"
    done
    # Libraries lie in folders named by architecture.
    find "$partial/usr/lib" "$partial/lib" -name '*.so*' -not -path '*/syslog-ng/*' \
      -exec cp -P {} "$partial/libraries/" \;
    touch "$partial/complete"
    mv "$partial" "$folder"
  fi
  printf '%s\n' "$folder"
}

case ${1:-} in
  fetch) fetch ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
