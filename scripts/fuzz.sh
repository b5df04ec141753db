#!/usr/bin/env bash
# npm run fuzz [-- SECONDS [FILE...]]: the fuzz tests of `npm test`, for longer: SECONDS for each test (default 120), of
# all files in test/fuzz or those named. SEED=N repeats a run; a failure names the seed that repeats it at once.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-120}
shift || true
[[ "$seconds" =~ ^[0-9]+$ ]] || {
  echo "fuzz: \"$seconds\" is not a number of seconds" >&2
  exit 2
}
bash scripts/build.sh
if [ $# -gt 0 ]; then files=("$@"); else mapfile -t files < <(find test/fuzz -name '*.test.ts' | sort); fi
mapfile -t compiled < <(printf '%s\n' "${files[@]}" | sed 's#^#dist/#; s#\.ts$#.js#')
FUZZ_SECONDS=$seconds exec node --test --test-concurrency=1 --test-reporter=spec "${compiled[@]}"
