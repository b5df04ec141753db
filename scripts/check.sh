#!/usr/bin/env bash
# npm run check: types, lint and tidiness of the whole tree, in seconds. Needs nothing but `npm ci`. `npm test` does the
# same and more. Changes nothing but dist/.
set -euo pipefail
cd "$(dirname "$0")/.."

echo 'check: types'
npx tsc -p .
echo 'check: lint'
npx eslint .
echo 'check: long files, for whoever reviews: is each still about one thing?'
git ls-files 'src/*' 'test/*' 'native/*' 'samba-module/*' 'scripts/*' 'bench/*' | grep -E '\.(ts|js|c|cc|h|sh|py)$' \
  | xargs wc -l | awk '$2 != "total" && $1 > 450 { printf "  %4d %s\n", $1, $2 }' | sort -rn
echo 'check: tidy'
node --test dist/test/unit/tidy.test.js dist/test/unit/tidy-docs.test.js
