#!/usr/bin/env bash
# npm run setup: everything that `npm run demo` and `npm test` need, on a fresh Debian 12 with Node 20. Both call it
# first. Does only what is missing: seconds when nothing changed. Never starts, stops or changes a Samba service that
# was there.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian packages, each needed for: smbd and its VFS modules; smbtorture; smbclient; the stock ctdb tool, to look at our
# daemon with; libtdb for the addon; tdbdump and friends for the tests; a compiler; network namespaces; the client that
# holds handles open (src/lab/client).
packages=(samba samba-vfs-modules samba-testsuite smbclient ctdb libtdb-dev tdb-tools build-essential pkg-config
  iproute2 python3 python3-impacket)
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
    "install ${packages[*]} (Samba 4.17) by hand and see README"
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
say "ready"
