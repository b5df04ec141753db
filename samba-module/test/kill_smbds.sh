#!/bin/bash
# Kills smbd processes of clients with -9 under load and looks whether anything is left in the daemon: attachments,
# rings, descriptors, memory. Needs a running smbd with the module and a ring_daemon (dist/native-test) at its socket.
#   kill_smbds.sh SHARE-URL PORT USER%PASSWORD SMBD-PID RING-DAEMON-PID [KILLS, default 1000]
set -euo pipefail

url=$1 port=$2 user=$3 smbd=$4 daemon=$5 kills=${6:-1000}
work=$(mktemp -d)
trap 'touch "$work/stop"; wait; rm -rf "$work"' EXIT
head -c 20000 /dev/urandom > "$work/data"

rings() { grep -c smbpool-ring "/proc/$daemon/maps" || true; }
descriptors() { find "/proc/$daemon/fd" -type l | wc -l; }
memory_kib() { awk '/^VmRSS/ {print $2}' "/proc/$daemon/status"; }

loader() {
  local commands= i
  for i in 1 2 3 4 5 6 7 8; do
    commands="$commands put $work/data f$1-$i; get f$1-$i /dev/null; put $work/data shared; ls; del f$1-$i;"
  done
  until [ -e "$work/stop" ]; do
    timeout 20 smbclient "$url" -p "$port" -U "$user" -c "$commands" >/dev/null 2>&1 || echo failed >> "$work/failed"
  done
}

before="rings $(rings) descriptors $(descriptors)"
memory_before=$(memory_kib)
for each in 1 2 3 4; do loader "$each" & done
killed=0
while [ "$killed" -lt "$kills" ]; do
  # only smbds that serve a client: they have a ring of ours mapped
  for pid in $(pgrep -P "$smbd" smbd || true); do
    if grep -q smbpool-ring "/proc/$pid/maps" 2>/dev/null && [ $((RANDOM % 3)) = 0 ]; then
      kill -9 "$pid" 2>/dev/null && killed=$((killed + 1))
    fi
  done
  sleep 0.01
done
touch "$work/stop"
wait
sleep 1
echo "killed $killed; before: $before; after: rings $(rings) descriptors $(descriptors)"
echo "memory of the daemon in KiB: $memory_before before, $(memory_kib) after"
smbclient "$url" -p "$port" -U "$user" -c "put $work/data last; del last" >/dev/null 2>&1 && echo "and it still serves"
[ "$before" = "rings $(rings) descriptors $(descriptors)" ]
