#!/usr/bin/env bash
# test/model/check.sh [full]: the models of views, servers and leases, checked exhaustively by spin; then the canaries:
# bugs planted one at a time, each of which spin must find. Called by views.test.ts; README.md explains. Takes less than
# three minutes on two cores; with "full" also the larger bounds, some ten minutes and 2 GB more. Fails when a run finds
# an error or is cut short (depth, memory, time), and when a canary is not found. Leaves the trails in dist/model.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../dist/model
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$out"

# the larger bounds need some 2 GB and, on a quiet machine, less than five minutes each; no search is ten thousand deep
MEMORY_MB_MAX=4000
DEPTH_MAX=1000000
SECONDS_MAX=1800
failed=0

command -v spin >/dev/null || { echo "model: spin is missing: apt-get install spin, or npm run setup" >&2; exit 1; }

# build MODEL NAME FLAG...: the checker for these bounds, in a folder of its own
build() {
  local model=$1 name=$2
  shift 2
  rm -rf "${out:?}/$name"
  mkdir -p "$out/$name"
  cd "$out/$name"
  cp "$here/$model.pml" .
  printf '%s\n' "spin -t $* $model.pml" >trail-command
  spin -a "$@" "$model.pml" >spin.log || { cat spin.log; return 1; }
  # one process takes each step at once, so that partial order reduction has nothing to do
  gcc -w -O1 -DSAFETY -DNOREDUCE -DCOLLAPSE -DMEMLIM="$MEMORY_MB_MAX" -o pan pan.c
}

# search HASH_BITS FLAG...: prints what pan says; stopped after SECONDS_MAX
search() {
  timeout "$SECONDS_MAX" ./pan -m"$DEPTH_MAX" -w"$1" -n >pan.log 2>&1 || echo "model: pan ended with $?" >>pan.log
}

# value TEXT PATTERN: the first number that the pattern, a sed expression with one group, finds in pan.log
value() { sed -nE "s/$1/\1/p" pan.log | head -1; }

# complete MODEL NAME HASH_BITS FLAG...: no error, and nothing left out
complete() {
  local model=$1 name=$2 bits=$3
  shift 3
  build "$model" "$name" "$@"
  search "$bits"
  printf 'model: %-7s %-45s %9s states, depth %4s, %5s MB, %4s s\n' "$model" "$*" \
    "$(value '^ *([0-9]+) states, stored.*')" "$(value '.*depth reached ([0-9]+).*')" \
    "$(value '^ *([0-9]+)\.[0-9]+\ttotal actual memory.*')" "$(value '^pan: elapsed time ([0-9.]+) .*')"
  if ! grep -q '^Full statespace search' pan.log || ! grep -q 'errors: 0$' pan.log ||
    grep -qiE 'not completed|max search depth|out of memory|reached -DMEMLIM|truncated|model: pan ended' pan.log; then
    echo "model: $model $*: an error, or not complete:" >&2
    grep -E 'assertion|errors:|rror|depth|memory|ended' pan.log >&2 || true
    [ ! -e "$model.pml.trail" ] || echo "model: in $out/$name: $(cat trail-command)" >&2
    failed=1
  fi
}

# canary MODEL BUG FLAG...: spin must find a violated assertion
canary() {
  local model=$1 bug=$2
  shift 2
  build "$model" "$bug-$model" "-D$bug" "$@"
  search 22
  if grep -q 'assertion violated' pan.log && [ -e "$model.pml.trail" ]; then
    printf 'model: canary %-26s found after %8s states: %s\n' "$bug" "$(value '^ *([0-9]+) states, stored.*')" \
      "$(value '^pan:1: assertion violated (.*) \(at depth.*')"
  else
    echo "model: canary $bug ($model $*) was not found: the model does not see what it is for" >&2
    failed=1
  fi
}

complete views views-two-terms 22 -DTERMS=2 -DPER_TERM=2 -DRUNS=2
complete views views-three-terms 22 -DTERMS=3 -DPER_TERM=1 -DRUNS=2
complete views views-four-terms 22 -DTERMS=4 -DPER_TERM=1 -DRUNS=1
complete servers servers-two-terms 22 -DTERMS=2 -DPER_TERM=2
complete leases leases-one-run 22 -DTERMS=2 -DPER_TERM=2 -DRUNS=1
complete leases leases-two-runs 22 -DTERMS=2 -DPER_TERM=2 -DEPOCHS=3 -DRUNS=2

for bug in VOTE_NOT_SAVED VIEW_NOT_SAVED LEADS_ON_AFTER_CRASH ANY_VIEW_MAY_LEAD OLD_TERM_ACCEPTED RUN_MAY_RETURN; do
  canary views "$bug" -DTERMS=2 -DPER_TERM=2 -DRUNS=2
done
canary servers CHANGES_BEFORE_ITS_OWN_VIEW -DTERMS=3 -DPER_TERM=1
canary views NO_OWN_TERM_RULE -DTERMS=4 -DPER_TERM=1 -DRUNS=1
for bug in NO_PROMISE NO_INHERITED_LEASES NO_WAIT_AFTER_START LEADER_VOTES STEPS_DOWN_AND_VOTES \
  AUTHORITY_FROM_RECEIPT LEASE_FROM_RECEIPT NO_LEASE_WAIT LEASE_WHILE_PROPOSED_OUT LEASE_BY_INSTALLED_VIEW \
  RUN_MAY_RETURN; do
  canary leases "$bug" -DTERMS=2 -DPER_TERM=2 -DRUNS=1
done

if [ "${1:-}" = full ]; then
  complete views views-full-runs-2 24 -DTERMS=2 -DPER_TERM=2 -DRUNS=3
  complete views views-full-runs-3 24 -DTERMS=3 -DPER_TERM=1 -DRUNS=3
  complete views views-full-proposals 24 -DTERMS=2 -DPER_TERM=3 -DRUNS=2
  complete views views-full-terms 25 -DTERMS=3 -DPER_TERM=2 -DEPOCHS=5 -DRUNS=2
  complete leases leases-full-runs 24 -DTERMS=2 -DPER_TERM=2 -DRUNS=2
  complete leases leases-full-promise-1 24 -DLEASE=3 -DPROMISE=1 -DTERMS=2 -DPER_TERM=2 -DEPOCHS=3 -DRUNS=1
  complete leases leases-full-promise-2 24 -DLEASE=3 -DPROMISE=2 -DTERMS=2 -DPER_TERM=2 -DEPOCHS=3 -DRUNS=1
fi
exit "$failed"
