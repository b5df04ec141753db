#!/usr/bin/env bash
# npm run setup: everything that `npm run demo` and `npm test` need, on a fresh Debian 12 or 13 with Node 20. Both call
# it first. Does only what is missing: seconds when nothing changed; the first time some minutes, half of them for the
# source of the installed Samba, which the VFS module is built against. Never starts, stops or changes a Samba service
# that was there.
#   SMBPOOL_NO_MODULE=1  without the VFS module; demo, tests and labs then do without it too
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian packages, each needed for: smbd and its VFS modules; smbtorture; smbclient; the stock ctdb tool, to look at our
# daemon with; libtdb for the addon; tdbdump and friends for the tests; a compiler; network namespaces; frames
# that are lost on purpose (lab chaos); the client that holds handles open (src/lab/client); the model checker
# (test/model); etcd, for pools whose membership is there.
packages=(samba samba-vfs-modules samba-testsuite smbclient ctdb libtdb-dev tdb-tools build-essential pkg-config
  iproute2 nftables python3 python3-impacket spin etcd-server)
# and what the VFS module is built with
if [ "${SMBPOOL_NO_MODULE:-}" != 1 ]; then
  mapfile -t -O "${#packages[@]}" packages < <(bash scripts/build-module.sh --print-packages)
fi
NODE_MAJOR_MIN=20

say() { echo "setup: $*"; }
stop() {
  echo "setup: $*" >&2
  exit 1
}

[ "$(id -u)" = 0 ] ||
  stop "must run as root (it installs packages; the lab makes network namespaces): sudo npm run setup"
[ -f /etc/debian_version ] && command -v apt-get >/dev/null ||
  stop "this is not Debian, and the set-up knows only Debian's packages:" \
    "install ${packages[*]} (Samba 4.17 or 4.22) by hand and see README"
command -v node >/dev/null || stop "Node.js is missing: install Node.js $NODE_MAJOR_MIN or later"
node_major=$(node -p 'process.versions.node.split(".")[0]')
[ "$node_major" -ge "$NODE_MAJOR_MIN" ] || stop "Node.js $(node -v) is too old: $NODE_MAJOR_MIN or later is needed"
command -v npm >/dev/null || stop "npm is missing: it comes with Node.js"

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
samba_was_there=yes
for package in "${missing[@]}"; do [ "$package" != samba ] || samba_was_there=no; done

# Debian starts smbd and nmbd as soon as they are installed. The lab runs its own in network namespaces and would not
# mind, but nobody asked for a file server on this machine: a policy file keeps new services from starting while we
# install.
policy=/usr/sbin/policy-rc.d
install_packages() {
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q || say "apt-get update failed; trying with the package lists that are here"
  apt-get install -q -y --no-install-recommends "${missing[@]}" ||
    stop "apt-get could not install: ${missing[*]}. Its message is above; put that right and run this again"
}
if [ ${#missing[@]} -gt 0 ]; then
  say "installing Debian packages: ${missing[*]}"
  (install_packages)
  if [ "$samba_was_there" = no ] && [ -d /run/systemd/system ]; then
    systemctl disable smbd nmbd samba-ad-dc ctdb >/dev/null 2>&1 || true
    say "Samba was not here before: its services are neither started nor enabled" \
      "(systemctl enable --now smbd does both)"
  fi
  if [[ " ${missing[*]} " == *" etcd-server "* ]] && [ -d /run/systemd/system ]; then
    systemctl disable etcd >/dev/null 2>&1 || true
  fi
fi

# npm ci only when the lock file is not the one that was installed
lock_sum=$(sha256sum package-lock.json | cut -d' ' -f1)
stamp=node_modules/.smbpool-lock-sum
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$lock_sum" ]; then
  say "npm ci"
  npm ci || stop "npm ci failed; its message is above"
  echo "$lock_sum" >"$stamp"
fi

bash scripts/build.sh || stop "the build failed; its message is above"

# What the module is made of, and for which Samba.
module_fingerprint() {
  {
    dpkg-query -W -f '${Version}' samba
    cat scripts/build-module.sh samba-module/compat/releases
    find samba-module native/shared -type f -name '*.[ch]' | sort | xargs cat
  } | sha256sum | cut -d' ' -f1
}

# Whether the files in smbd's folder are the ones built here: another copy of the repository may have installed its own.
module_is_installed() {
  local folder file
  folder=$(smbd -b | sed -n 's/^ *MODULESDIR: *//p')/vfs
  for file in dist/module/smbpool*.so; do cmp -s "$file" "$folder/$(basename "$file")" || return 1; done
}

module_stamp=dist/module/.fingerprint
if [ "${SMBPOOL_NO_MODULE:-}" = 1 ]; then
  say "without the VFS module, as SMBPOOL_NO_MODULE=1 says"
else
  fingerprint=$(module_fingerprint)
  if [ "$(cat "$module_stamp" 2>/dev/null || true)" != "$fingerprint" ] || ! module_is_installed; then
    say "building the VFS module (the first time for this Samba its source is fetched: a minute or two)"
    bash scripts/build-module.sh --install ||
      stop "the VFS module could not be built; its message is above. Put that right and run this again;" \
        "or build it from a source you have: scripts/build-module.sh --install --source DIRECTORY; or go without the" \
        "module, with slower opens: SMBPOOL_NO_MODULE=1 npm run demo (or setup, test, npx smbpool lab up)"
    echo "$fingerprint" >"$module_stamp"
  fi
fi
say "ready"
