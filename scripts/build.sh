#!/usr/bin/env bash
# Builds the addon (native/, with node-gyp) and the TypeScript (src/, test/, into dist/). Does nothing, quickly, when
# neither changed. Called by `npm run build`, by set-up and by the tests; downloads nothing when Node.js brings its
# headers.
set -euo pipefail
cd "$(dirname "$0")/.."

stop() {
  echo "build: $*" >&2
  exit 1
}

[ -d node_modules ] || stop "the libraries are missing: run npm run setup (or npm ci) first"
[ -e /usr/include/tdb.h ] || stop "libtdb's headers are missing: run npm run setup, or apt-get install libtdb-dev"

# one build at a time: two would write the same files
mkdir -p .cache
exec 9>.cache/build.lock
flock 9

# What the addon is made of, and by which Node.js: a change of either means to build again. The lock file stands for
# node-addon-api; listing the tree is cheaper than hashing node_modules.
addon_fingerprint() {
  {
    node -p 'process.version + process.arch'
    cat binding.gyp package-lock.json
    find native -type f -name '*.[ch]*' | sort | xargs cat
  } | sha256sum | cut -d' ' -f1
}

addon=build/Release/smbpool.node
stamp=build/.smbpool-fingerprint
fingerprint=$(addon_fingerprint)
if [ ! -e "$addon" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$fingerprint" ]; then
  echo "build: the addon (about 10 seconds)"
  # Debian's and NodeSource's packages put the headers beside the program; otherwise node-gyp fetches them
  prefix=$(node -p 'require("path").resolve(process.execPath, "../..")')
  headers=()
  if [ -e "$prefix/include/node/node_api.h" ]; then headers=("--nodedir=$prefix"); fi
  mkdir -p build
  log=build.log
  # the addon that is in use is replaced, never overwritten: running daemons have it mapped
  rm -f "$addon"
  if ! node_modules/.bin/node-gyp rebuild --jobs 2 "${headers[@]}" >"$log" 2>&1; then
    grep -B2 -A8 -E 'error|ERR!' "$log" | head -60 >&2
    stop "the addon does not compile: the lines above say why, $log has all. Where a header or a compiler is missing:" \
      "npm run setup installs them"
  fi
  echo "$fingerprint" >"$stamp"
fi

# tsc is incremental, but starting it takes seconds: skip it when no source is newer than its last success
done_mark=dist/.built
newer() { find src test bench tsconfig.json package.json -newer "$done_mark" -print -quit; }
if [ ! -e "$done_mark" ] || [ -n "$(newer)" ]; then
  echo "build: the TypeScript"
  mkdir -p dist
  touch "$done_mark.new"
  node_modules/.bin/tsc -p . || stop "the TypeScript does not compile"
  mv "$done_mark.new" "$done_mark"
fi
# npx finds a folder's own programs in node_modules/.bin, where npm links only those of dependencies
link_program() {
  [ -e "$2" ] || return 0
  chmod +x "$2"
  ln -sfn "../../$2" "node_modules/.bin/$1"
}
link_program smbpool dist/src/cli/main.js
link_program smbpoold dist/src/daemon/main.js
