#!/usr/bin/env bash
# Makes the small system of a kernel client: Debian's stock kernel with cifs.ko, busybox, and the two scripts beside
# this one, as an initial RAM disk.   make-system.sh FOLDER   Installs what is missing for it, downloads the kernel, and
# does nothing when FOLDER already has the system made of the same kernel and scripts.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?make-system.sh FOLDER}
packages=(qemu-system-x86 busybox-static cifs-utils kmod cpio util-linux)
modules=(cifs virtio_net virtio_pci nls_utf8 cmac ccm gcm ctr ghash_generic aes_generic aesni_intel sha512_generic
  hmac md5 des_generic ecb)

stop() {
  echo "make-system: $*" >&2
  exit 1
}

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "make-system: installing Debian packages: ${missing[*]}" >&2
  apt-get update -q >&2 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2 ||
    stop "apt-get could not install ${missing[*]}; its message is above"
fi

kernel_package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
[ -n "$kernel_package" ] ||
  stop "no package linux-image-amd64 in the package lists: apt-get update, on an amd64 machine"
stamp=$(cat "$here"/make-system.sh "$here"/init.sh "$here"/turns.sh | sha256sum | cut -c1-16)-$kernel_package
if [ "$(cat "$folder/stamp" 2>/dev/null || true)" = "$stamp" ]; then exit 0; fi

rm -rf "$folder/root"
mkdir -p "$folder/root"/{bin,sbin,dev,proc,sys,mnt,etc,modules}
cd "$folder"
if [ ! -d "kernel-$kernel_package" ]; then
  apt-get download -q "$kernel_package" >&2 || stop "could not download $kernel_package; apt's message is above"
  dpkg -x "$kernel_package"_*.deb "kernel-$kernel_package.new"
  rm -f "$kernel_package"_*.deb
  mv "kernel-$kernel_package.new" "kernel-$kernel_package"
fi
tree=$folder/kernel-$kernel_package
version=$(ls "$tree/lib/modules")
depmod -b "$tree" "$version"

# In the order in which each finds what it needs.
number=100
for module in "${modules[@]}"; do
  modprobe -d "$tree" -S "$version" --show-depends "$module" 2>/dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  cp "$file" "root/modules/$number-$(basename "$file")"
  number=$((number + 1))
done
[ -n "$(ls root/modules)" ] || stop "no kernel modules found in $tree"

cp /bin/busybox root/bin/busybox
root/bin/busybox --list | while read -r name; do [ "$name" = busybox ] || ln -sf busybox "root/bin/$name"; done
cp -L /usr/sbin/mount.cifs root/sbin/mount.cifs
ldd /usr/sbin/mount.cifs | grep -o '/[^ ]*\.so[^ ]*' | while read -r library; do
  mkdir -p "root$(dirname "$library")"
  cp -L "$library" "root$library"
done
echo 'root:x:0:0::/:/bin/sh' >root/etc/passwd
install -m 0755 "$here/init.sh" root/init
install -m 0644 "$here/turns.sh" root/turns.sh
(cd root && find . | cpio --quiet -o -H newc) >initrd.new
mv initrd.new initrd
ln -sfn "$(ls "$tree"/boot/vmlinuz-*)" kernel
echo "$stamp" >stamp
