#!/usr/bin/env bash
# fresh-machine.sh bookworm|trixie [COMMAND...]: runs a command of the README, as a new user would, on a bare Debian 12
# or 13: a folder with the minimal system, Node.js and a clone of HEAD, and nothing else. Without a command: npm run
# demo. The folder has namespaces of its own (mounts, network, processes) with its own /run and /tmp, so it disturbs no
# lab that is up; it reaches the package archives through slirp4netns. Debian comes from where this machine's apt gets
# it. The bare system is kept in .cache/fresh and made anew after a week; a run leaves nothing.
#   SMBPOOL_FRESH_KEEP=1  keeps the run's folder, to look at; its name is printed
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
BARE_DAYS_MAX=7

say() { echo "fresh-machine: $*" >&2; }
stop() {
  say "$@"
  exit 1
}
usage() { stop "usage: fresh-machine.sh bookworm|trixie [COMMAND...]"; }

release=${1:-}
# Node.js 20 is Debian 13's own; Debian 12's is too old, so this machine's is copied there
case $release in
  bookworm) packages=(ca-certificates git) ;;
  trixie) packages=(ca-certificates git nodejs npm) ;;
  *) usage ;;
esac
shift
[ $# -gt 0 ] || set -- npm run demo

[ "$(id -u)" = 0 ] || stop "needs root, for debootstrap and namespaces"
[ -z "${SMBPOOL_FRESH_MACHINE:-}" ] || stop "this is such a machine already ($SMBPOOL_FRESH_MACHINE)"
for tool in debootstrap slirp4netns git; do
  command -v "$tool" >/dev/null || stop "$tool is missing: apt-get install --no-install-recommends $tool"
done

# The places of this machine's apt that are Debian's, as lines of sources.list for the release wanted.
sources_list() {
  local format='$(REPO_URI) $(CODENAME) $(ORIGIN)' uri codename origin
  apt-get indextargets --format "$format" 'Created-By: Packages' | sort -u | while read -r uri codename origin; do
    [ "$origin" = Debian ] || continue
    case $codename in
      *-security) echo "deb $uri $release-security main" ;;
      *-updates) echo "deb $uri $release-updates main" ;;
      *-*) ;;
      *) echo "deb $uri $release main" ;;
    esac
  done
}

sources=$(sources_list)
# the lists may have been cleared to save space
[ -n "$sources" ] || { apt-get -q update >/dev/null && sources=$(sources_list); }
archive=$(sed -n "s/^deb \(.*\) $release main$/\1/p" <<<"$sources" | head -1)
[ -n "$archive" ] || stop "apt on this machine knows no archive of Debian (apt-get indextargets): run apt-get update"

bare=$here/.cache/fresh/$release
stamp=$bare.stamp
work=
started=()
cleanup() {
  # with unshare, which holds other signals back, all that runs in the folder ends (--kill-child)
  [ ${#started[@]} -eq 0 ] || kill -KILL "${started[@]}" 2>/dev/null || true
  # without the shell's own line about what was killed
  wait 2>/dev/null
  [ -n "$work" ] || return 0
  if [ "${SMBPOOL_FRESH_KEEP:-}" = 1 ]; then say "kept: $work"; else rm -rf --one-file-system "$work"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# This machine's way to the archives and the registry, where it has one of its own.
connect_as_here() {
  local root=$1
  printf '%s\n' "$sources" >"$root/etc/apt/sources.list"
  rm -f "$root"/etc/apt/sources.list.d/*
  apt-config dump | grep -E '^Acquire::https?::(Proxy|CaInfo)' >"$root/etc/apt/apt.conf.d/90fresh-machine" || true
  # slirp4netns answers there
  echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
  if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
    chroot "$root" update-ca-certificates >/dev/null 2>&1
  fi
  npm config get registry | sed 's/^/registry=/' >"$root/srv/.npmrc"
  if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    echo 'cafile=/etc/ssl/certs/ca-certificates.crt' >>"$root/srv/.npmrc"
  fi
}

make_bare() {
  say "debootstrap $release (once a week)"
  rm -rf --one-file-system "$bare" "$stamp"
  mkdir -p "$bare"
  {
    debootstrap --variant=minbase "$release" "$bare" "$archive" &&
      printf '%s\n' "$sources" >"$bare/etc/apt/sources.list" &&
      cp /etc/resolv.conf "$bare/etc/" &&
      chroot "$bare" apt-get -q update &&
      DEBIAN_FRONTEND=noninteractive chroot "$bare" apt-get -q -y install --no-install-recommends "${packages[@]}"
  } >"$bare.log" 2>&1 || {
    tail -5 "$bare.log" >&2
    stop "debootstrap failed; the whole log: $bare.log"
  }
  rm -f "$bare"/var/cache/apt/archives/*.deb
  echo "${packages[*]}" >"$stamp"
}

copy_node() {
  local root=$1 prefix
  prefix=$(node -p 'require("path").resolve(process.execPath, "../..")')
  mkdir -p "$root/usr/local/lib/node_modules" "$root/usr/local/include"
  cp "$prefix/bin/node" "$root/usr/local/bin/"
  cp -a "$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")" "$root/usr/local/lib/node_modules/npm"
  [ ! -d "$prefix/include/node" ] || cp -a "$prefix/include/node" "$root/usr/local/include/"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
  chroot "$root" node -v >/dev/null || stop "this machine's Node.js does not run on $release: it needs other libraries"
}

# In the new namespaces: waits for the network, makes the folder the root, runs the command there.
enter() {
  local root=$1 ready=$2 file
  shift 2
  read -r -n 1 <"$ready" || {
    echo "fresh-machine: slirp4netns gave no network: $(tail -3 "${ready%/*}/network.log")" >&2
    exit 1
  }
  # "ip netns" wants its root to be a mount
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount --rbind /dev "$root/dev"
  for file in run tmp dev/shm; do mount -t tmpfs -o mode=1777 tmpfs "$root/$file"; done
  exec chroot "$root" /usr/bin/env -i HOME=/srv "TERM=${TERM:-dumb}" LANG=C.UTF-8 \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "SMBPOOL_FRESH_MACHINE=$release" \
    /bin/sh -c 'cd /srv/smbpool && exec "$@"' sh "$@"
}

mkdir -p "$here/.cache/fresh"
exec 9>"$bare.lock"
flock 9
[ "$(cat "$stamp" 2>/dev/null)" = "${packages[*]}" ] && [ -z "$(find "$stamp" -mtime +$BARE_DAYS_MAX)" ] || make_bare
work=$(mktemp -d "$here/.cache/fresh/run.XXXXXX")
cp -a --reflink=auto "$bare" "$work/root"
flock -u 9

root=$work/root
connect_as_here "$root"
[ "$release" != bookworm ] || copy_node "$root"
git -C "$here" diff --quiet HEAD || say "changes that are not committed are not in the clone"
git clone -q --no-hardlinks "$here" "$root/srv/smbpool"

mkfifo "$work/ready"
export release
export -f enter
say "$release: $*"
unshare --mount --net --pid --fork --kill-child --propagation private \
  bash -c 'enter "$@"' enter "$root" "$work/ready" "$@" &
inside=$!
started+=("$inside")
slirp4netns --configure --mtu=65520 --disable-host-loopback --ready-fd=3 "$inside" tap0 3>"$work/ready" \
  >"$work/network.log" 2>&1 &
started+=("$!")
status=0
wait "$inside" || status=$?
exit "$status"
