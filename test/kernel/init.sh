#!/bin/sh
# First process of a kernel client: mounts the share named on the kernel's command line and hands over to turns.sh.
# Speaks with the test by the serial line: lines that begin with "@" are for it.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module" 2>/dev/null; done
stty -echo -icrnl </dev/console

setting() { tr ' ' '\n' </proc/cmdline | sed -n "s/^smbpool\.$1=//p"; }
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2

options="username=$(setting user),password=$(setting password),$(setting options)"
if mount.cifs "//$(setting server)/$(setting share)" /mnt -o "$options"; then
  cd /mnt && NAME=$(setting name) TURNS=$(setting turns) sh /turns.sh
  cd /
  umount /mnt
else
  dmesg | grep -i cifs | tail -5
  echo "@failed to mount"
fi
sync
poweroff -f
