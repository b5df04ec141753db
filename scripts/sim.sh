#!/usr/bin/env bash
# Compiles and runs the deterministic simulator: npm run sim -- --seed N --runs K (see test/sim/main.ts).
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -d node_modules ]; then
  echo 'sim: the packages are missing; run "npm run setup" first' >&2
  exit 1
fi
# types are checked by "npm run check"; a half-finished edit elsewhere must not keep a simulation from running
npx tsc -p . --noEmitOnError false >/dev/null || true
exec node --enable-source-maps dist/test/sim/main.js "$@"
