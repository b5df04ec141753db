#!/usr/bin/env bash
# npm run demo [-- --keep]: sets up what is missing, then shows the pool at work with real SMB clients
# (src/lab/demo.ts).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
exec node dist/src/lab/demo.js "$@"
