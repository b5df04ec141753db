#!/bin/bash
# Runs smbtorture suites against two private, unclustered smbds, one without and one with the module, and compares the
# outcome test by test. Needs root, the installed module (scripts/build-module.sh --install), dist/native-test
# (scripts/test-module.sh) and a unix user "pool" (made if missing). Leaves nothing running.
#   compare_torture.sh [--no-daemon] [--daemon-ms N] [--delay-ms N] [--kill-daemon] [--keep DIRECTORY] [SUITE...]
# --daemon-ms: the daemon answers after N ms (default 50). --delay-ms: the module's fault option. --no-daemon: none is
# there. --kill-daemon: it is killed and started again all the time.
set -euo pipefail

here=$(cd "$(dirname "$0")/../.." && pwd)
daemon_ms=50 delay_ms=0 daemon=yes kill_daemon= keep=
suites=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-daemon) daemon= ;;
    --daemon-ms) daemon_ms=$2; shift ;;
    --delay-ms) delay_ms=$2; shift ;;
    --kill-daemon) kill_daemon=yes ;;
    --keep) keep=$2; shift ;;
    -*) echo "unknown option $1" >&2; exit 2 ;;
    *) suites+=("$1") ;;
  esac
  shift
done
[ ${#suites[@]} -gt 0 ] || suites=(smb2.create smb2.oplock smb2.lease smb2.compound smb2.sharemode smb2.lock smb2.rename
  smb2.durable-open smb2.durable-v2-open smb2.replay)

work=$(mktemp -d)
children=()
cleanup() {
  touch "$work/stop"
  for each in "${children[@]}"; do kill "$each" 2>/dev/null || true; done
  wait || true
  if [ "$keep" ]; then mkdir -p "$keep" && cp -r "$work"/*.results "$work"/*.log "$keep" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT
chmod 755 "$work"
id pool >/dev/null 2>&1 || useradd -M pool

free_port() {
  /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_smbd() { # NAME PORT MODULES...
  local name=$1 port=$2 place=$work/$1
  shift 2
  mkdir -p "$place"/{private,lock,state,cache,run,ncalrpc,share}
  chmod 777 "$place/share"
  cat > "$place/smb.conf" <<C
[global]
  netbios name = $name
  workgroup = TORTURE
  server role = standalone server
  interfaces = 127.0.0.1/8
  bind interfaces only = yes
  smb ports = $port
  private dir = $place/private
  lock directory = $place/lock
  state directory = $place/state
  cache directory = $place/cache
  pid directory = $place/run
  ncalrpc dir = $place/ncalrpc
  log file = $place/smbd.log
  log level = 1 smbpool:3
  max log size = 0
  disable netbios = yes
  load printers = no
  disable spoolss = yes
  server multi channel support = no
  kernel oplocks = no
  kernel share modes = no
  posix locking = no
  durable handles = yes
  smb2 leases = yes
[pool]
  path = $place/share
  read only = no
  ea support = yes
  store dos attributes = yes
  map archive = no
  create mask = 0777
  directory mask = 0777
  vfs objects = acl_xattr streams_xattr $*
  acl_xattr:ignore system acls = yes
  smbpool:socket = $work/ring.sock
  smbpool:volume id = torture
  smbpool:delay ms = $delay_ms
C
  printf 'pass\npass\n' | smbpasswd -c "$place/smb.conf" -s -a pool >/dev/null 2>&1
  smbd -F --no-process-group -s "$place/smb.conf" >"$place/stdout.log" 2>&1 &
  children+=($!)
}

keep_killing() {
  local count=0 pid
  until [ -e "$work/stop" ]; do
    "$here/dist/native-test/ring_daemon" "$work/ring.sock" --delay-ms "$daemon_ms" --watch --quiet \
      >"$work/daemon.log" 2>&1 &
    pid=$!
    sleep "$((RANDOM % 3)).$((RANDOM % 9 + 1))"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    count=$((count + 1))
    echo "$count" > "$work/kills"
    sleep "0.$((RANDOM % 6))"
  done
}

torture() { # NAME PORT
  local suite
  for suite in "${suites[@]}"; do
    timeout 900 nice -n 5 smbtorture //127.0.0.1/pool -p "$2" -U pool%pass --option=torture:progress=no \
      --option='client min protocol=SMB2_02' "$suite" >"$work/$1/$suite.log" 2>&1 || true
    grep -E '^(success|failure|skip|error): ' "$work/$1/$suite.log" | sed "s/ \[\$//; s/^/$suite /" \
      >> "$work/$1.results" || echo "$suite gave no result" >> "$work/$1.results"
  done
  sort -o "$work/$1.results" "$work/$1.results"
}

plain_port=$(free_port)
module_port=$(free_port)
start_smbd plain "$plain_port"
start_smbd module "$module_port" smbpool
if [ "$kill_daemon" ]; then
  keep_killing &
elif [ "$daemon" ]; then
  "$here/dist/native-test/ring_daemon" "$work/ring.sock" --delay-ms "$daemon_ms" --watch >"$work/daemon.log" 2>&1 &
  children+=($!)
fi
sleep 2
torture plain "$plain_port" &
plain=$!
torture module "$module_port"
wait "$plain"

echo "without the module: $(cut -d' ' -f2 "$work/plain.results" | sort | uniq -c | tr -s '\n ' ' ')"
echo "with the module:    $(cut -d' ' -f2 "$work/module.results" | sort | uniq -c | tr -s '\n ' ' ')"
if [ "$kill_daemon" ]; then echo "daemon killed $(cat "$work/kills") times"; fi
if [ "$daemon" ] && [ ! "$kill_daemon" ]; then
  echo "attachments $(grep -c ' attached ' "$work/daemon.log"), opens reported $(grep -c ' end ' "$work/daemon.log")," \
    "left open at an end: $(grep ' detached ' "$work/daemon.log" | grep -vc 'begun 0 open 0' || true)"
fi
diff "$work/plain.results" "$work/module.results" && echo 'test by test the same'
