#!/usr/bin/env bash
# npm test [-- PART...]: sets up what is missing, then runs all tests, or those of the parts named: unit scenarios sim
# model native fuzz integration suites fresh. Ends with one line of counts; fails when a test failed, or when there was
# none to run.
# The part "fresh" tries the README on bare machines (scripts/fresh-machine.sh); on such a machine it is skipped.
# The part "kernel" runs only when it is named: real Linux kernel clients in small virtual machines (test/kernel,
# whose turns.test.ts has its variables).
#   SEED=N                repeats the random tests of a run
#   SMBPOOL_LOAD_SECONDS  how long the random load of the integration tests lasts (default 60)
#   SMBPOOL_LEASE_SECONDS how long the load of clients that cache lasts (default 60)
#   SMBPOOL_FULL=1        Samba's whole list also over UDP, on one and five servers, with losses (20 minutes more)
#   SMBPOOL_SHORT=1       only the quick ones of Samba's suites, only on three servers (two minutes)
#   SMBPOOL_MODEL_FULL=1  the models of views also with larger bounds (ten minutes more, 2 GB)
#   SMBPOOL_KILLS         how many smbds are killed under load (default 60)
#   SMBPOOL_DAEMON_KILLS  how many daemons are killed under load (default 5)
#   SMBPOOL_FAILOVERS     how many servers are killed one after the other (default 5)
#   SMBPOOL_CHAOS_MINUTES how long servers, processes and links fail at random (default 2)
#   SMBPOOL_NO_MODULE=1   without the VFS module
#   SMBPOOL_KEEP=1        a lab in which a test failed stays up; "npx smbpool lab down" ends it
set -euo pipefail
cd "$(dirname "$0")/.."

usual_parts=(unit scenarios sim model native fuzz integration suites fresh)
all_parts=("${usual_parts[@]}" kernel)
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=("${usual_parts[@]}")
for part in "${parts[@]}"; do
  [[ " ${all_parts[*]} " == *" $part "* ]] || {
    echo "test: there is no part \"$part\"; choose from ${all_parts[*]}" >&2
    exit 2
  }
done

bash scripts/setup.sh

# the integration tests take their lab down themselves; this is for the case that they were killed
LAB_ROOT=/tmp/smbpool-test
with_lab=no
reports=$(mktemp -d)
finish() {
  if [ "$with_lab" = yes ] && [ "${SMBPOOL_KEEP:-}" != 1 ] &&
    [ "$(cat /run/smbpool-lab 2>/dev/null || true)" = "$LAB_ROOT" ]; then
    node dist/src/cli/main.js lab down --root "$LAB_ROOT" --wipe || true
  fi
  rm -rf "$reports"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# the compiled form of every test source of the parts given; what is left in dist of deleted sources is not run
compiled() {
  local part
  for part in "$@"; do
    if [ -d "test/$part" ]; then find "test/$part" -name '*.test.ts' | sort | sed 's#^#dist/#; s#\.ts$#.js#'; fi
  done
}

failed=0
# run LABEL CONCURRENCY FILE...
run() {
  local label=$1 concurrency=$2
  shift 2
  [ $# -gt 0 ] || return 0
  echo "test: $label ($# files)"
  node --test --test-concurrency="$concurrency" \
    --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$reports/$label" "$@" || failed=1
}

quick=()
in_labs=()
for part in "${parts[@]}"; do
  case $part in
    integration | suites | kernel) in_labs+=("$part") ;;
    fresh) ;;
    *) quick+=("$part") ;;
  esac
done
mapfile -t files < <(compiled "${quick[@]}")
run quick "$(nproc)" "${files[@]}"
# one lab at a time: its addresses and namespaces exist once on a machine
for part in "${in_labs[@]}"; do
  with_lab=yes
  mapfile -t files < <(compiled "$part")
  run "$part" 1 "${files[@]}"
done

if [[ " ${parts[*]} " == *" fresh "* ]]; then
  missing=()
  for tool in debootstrap slirp4netns git; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  if [ ${#missing[@]} -gt 0 ] && [ -z "${SMBPOOL_FRESH_MACHINE:-}" ]; then
    echo "test: installing ${missing[*]}"
    # the tests say what is missing when it cannot be had
    apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null || true
  fi
  mapfile -t files < <(compiled fresh)
  run fresh 1 "${files[@]}"
fi

# what failed and why, at the end, where it is found; a test that only contains one that failed is not told
failures() {
  cat "$reports"/* 2>/dev/null | awk '
    /^ *not ok / && !/# SKIP/ { collecting = 1; lines = 0; text = ""; is_parent = 0 }
    collecting && lines < 30 { text = text $0 "\n"; lines++ }
    collecting && /failureType: .subtestsFailed/ { is_parent = 1 }
    collecting && /^ *\.\.\.$/ { collecting = 0; if (!is_parent) printf "%s", text }'
}
[ "$failed" = 0 ] || { echo "test: what failed:"; failures; }

sum() {
  cat "$reports"/* 2>/dev/null \
    | awk -v what="$1" '$1 == "#" && $2 == what && NF == 3 { total += $3 } END { print total + 0 }'
}
echo "tests $(sum tests), passed $(sum pass), failed $(sum fail), cancelled $(sum cancelled), skipped $(sum skipped)"
[ "$(sum tests)" -gt 0 ] || failed=1
exit "$failed"
