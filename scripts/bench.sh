#!/usr/bin/env bash
# npm run bench [-- OPTIONS]: smbpoold and stock ctdbd side by side on this machine (bench/main.ts). Sets up what is
# missing; some four minutes, or one with --quick. Needs root; a lab may be up meanwhile, but would disturb the figures.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh >&2
exec node dist/bench/main.js "$@"
