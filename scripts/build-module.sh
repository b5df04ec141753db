#!/bin/bash
# Builds samba-module/ (the VFS module "smbpool") for exactly the Samba that is installed on this machine, out of tree.
#   build-module.sh [--install [DIRECTORY]] [--source DIRECTORY] [--sanitize] | --print-packages
# The source of the installed version is fetched with apt-get source and configured as Debian does, only to generate the
# headers that smbd's modules need; that is cached under .cache/samba/VERSION. Never edits the system's apt sources.
# Result: dist/module/smbpool.so (checks the release, then loads) and dist/module/smbpool-VERSION.so.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${SMBPOOL_CACHE:-$here/.cache/samba}
out=${SMBPOOL_MODULE_OUT:-$here/dist/module}
releases=$here/samba-module/compat/releases
install_to=
source_from=
sanitize=
print_packages=

die() { echo "build-module: $*" >&2; exit 1; }
# die_with_log LOG WHAT REMEDY: the last lines of the log say why
die_with_log() {
  echo "build-module: $2; the end of $1:" >&2
  grep -v '^[[:space:]]*$' "$1" | tail -12 | sed 's/^/  | /' >&2 || true
  die "$3"
}

while [ $# -gt 0 ]; do
  case $1 in
    --install) install_to=default; if [ "${2:-}" ] && [ "${2#--}" = "$2" ]; then install_to=$2; shift; fi ;;
    --source) source_from=${2:?--source needs a directory}; shift ;;
    --sanitize) sanitize=1 ;;
    --print-packages) print_packages=1 ;;
    *) die "unknown option $1; known: --install [DIRECTORY], --source DIRECTORY, --sanitize, --print-packages" ;;
  esac
  shift
done

# What configure needs to find the features Debian's build has, as far as they shape structures of smbd.
needed_packages="gcc bison flex pkg-config dpkg-dev patch libtalloc-dev libtevent-dev libtdb-dev libacl1-dev
  libarchive-dev libblkid-dev libbsd-dev libcap-dev libdbus-1-dev libgnutls28-dev libicu-dev libjansson-dev libjson-perl
  libkeyutils-dev libldap2-dev libpam0g-dev libparse-yapp-perl libpopt-dev libreadline-dev libsystemd-dev libtasn1-bin
  liblmdb-dev liburing-dev zlib1g-dev libcmocka-dev"
# Samba 4.17's build scripts import it; Debian 13's Python, and its Samba, are without.
if [ "$(sed -n 's/^VERSION_ID="\{0,1\}\([0-9]*\).*/\1/p' /etc/os-release 2>/dev/null)" = 12 ]; then
  needed_packages="$needed_packages python3-distutils"
fi
if [ "$print_packages" ]; then
  echo "$needed_packages" | xargs -n1
  exit 0
fi

package_version=$(dpkg-query -W -f '${Version}' samba 2>/dev/null) \
  || die "Samba is not installed: apt-get install samba"
running=$(smbd -V | sed 's/^Version //')
# a line of the table: release, VFS interface, ending of private libraries
IFS=' ' read -r release interface_wanted library_suffix _ \
  < <(sed -n "/^$(cut -d. -f1-2 <<<"$running" | sed 's/\./\\./') /p" "$releases"; echo) || true
[ -n "$release" ] || die "smbd is $running; this module knows $(sed -n 's/^\([0-9][0-9.]*\) .*/\1/p' "$releases" \
  | paste -sd, | sed 's/,/ and /'): install one of these, or port samba-module/compat to it"
architecture=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
private_libraries=/usr/lib/$architecture/samba
tree=$cache/$(echo "$package_version" | tr -c 'A-Za-z0-9.+\n' '_')
source=$tree/source
generated=$source/bin/default

check_packages() {
  local missing=
  for name in $needed_packages; do
    [ "$name" = libcmocka-dev ] && continue # for the tests
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing="$missing $name"
  done
  [ -z "$missing" ] || die "missing packages: apt-get install --no-install-recommends$missing"
}

# Our own list of sources: each "deb" entry of the system, as "deb-src". The system's files are only read.
write_sources_list() {
  local list=$1/sources.list parts=$1/sources.list.d
  mkdir -p "$parts"
  : > "$list"
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null \
    | sed -n 's/^deb\(-src\)\?\([[:space:]]\)/deb-src\2/p' | sort -u > "$list" || true
  local file
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] || continue
    sed 's/^Types:.*/Types: deb-src/' "$file" > "$parts/$(basename "$file")"
  done
}

fetch_source() {
  local work=$tree/fetch
  mkdir -p "$work/apt" "$work/lists/partial" "$work/package"
  write_sources_list "$work/apt"
  local options=(-o "Dir::Etc::SourceList=$work/apt/sources.list" -o "Dir::Etc::SourceParts=$work/apt/sources.list.d"
    -o "Dir::State::Lists=$work/lists" -o APT::Sandbox::User=root)
  # One of the listed places may have no sources: that is not fatal as long as one has ours.
  apt-get "${options[@]}" update >"$work/update.log" 2>&1 || true
  (cd "$work/package" \
    && apt-get "${options[@]}" source --download-only "samba=$package_version" >"$work/fetch.log" 2>&1) \
    || die_with_log "$work/fetch.log" "fetching the source of samba $package_version failed" \
      "where this machine's package sources have no sources, give it with --source DIRECTORY"
  dpkg-source --no-check -x "$work"/package/*.dsc "$tree/unpacked" >"$work/unpack.log" 2>&1 \
    || die_with_log "$work/unpack.log" "unpacking the source failed" "is there space on the disk? (2 GB are plenty)"
}

prepare_source() {
  [ -e "$tree/headers.stamp" ] && return
  check_packages
  rm -rf "$source" "$tree/unpacked"
  mkdir -p "$tree"
  if [ "$source_from" ]; then
    cp -a "$source_from" "$tree/unpacked"
  else
    fetch_source
  fi
  # Debian's build puts its name into the version, and so into the version of every private symbol.
  sed -r -i "s/^(SAMBA_VERSION_VENDOR_SUFFIX)=.*/\1=${running#*-}/" "$tree/unpacked/VERSION"
  mv "$tree/unpacked" "$source"
  generate_headers
  touch "$tree/headers.stamp"
}

generate_headers() {
  local names
  echo "build-module: configuring the source of Samba $running (once, about a minute)"
  (cd "$source" && export PYTHONHASHSEED=1 PYTHON=/usr/bin/python3 \
    && nice -n 10 /usr/bin/python3 ./buildtools/bin/waf -j2 configure \
    --prefix=/usr --enable-fhs --sysconfdir=/etc --localstatedir=/var --libexecdir=/usr/libexec \
    --libdir="/usr/lib/$architecture" --datadir=/usr/share --with-modulesdir="/usr/lib/$architecture/samba" \
    --with-pammodulesdir="/lib/$architecture/security" --with-privatedir=/var/lib/samba/private \
    --with-smbpasswd-file=/etc/samba/smbpasswd --with-piddir=/run/samba --with-lockdir=/run/samba \
    --with-sockets-dir=/run/samba --with-statedir=/var/lib/samba --with-cachedir=/var/cache/samba \
    --with-pam --with-syslog --with-utmp --with-winbind --with-automount --with-ldap --with-ads --with-profiling-data \
    --disable-rpath --disable-rpath-install --with-cluster-support --with-quota --with-systemd \
    --disable-cephfs --disable-glusterfs --disable-cups --disable-avahi --disable-python --without-ad-dc \
    --without-gpgme --bundled-libraries=NONE,ldb) >"$tree/configure.log" 2>&1 \
    || die_with_log "$tree/configure.log" "configuring the source of Samba failed" \
      "install the package that has what is \"not found\" or \"unusable\" above (apt-get install), and run this again"
  names=$(cd "$source" && grep -oh '[A-Za-z0-9_]*\.idl' librpc/idl/wscript_build source3/librpc/idl/wscript_build \
    | sed 's/\.idl$//' | tr a-z A-Z | sort -u | grep -v '^IDL_TYPES$' | sed 's/^/PIDL_/' | paste -sd,)
  names=s3_param_proto_h,param_functions.h,param_local.h,param_global.h,ntstatus_generated,werror_generated,$names
  # where it is made, not only shipped (4.22)
  if grep -q "'hresult_generated'" "$source/libcli/util/wscript_build"; then names=hresult_generated,$names; fi
  (cd "$source" && PYTHONHASHSEED=1 nice -n 10 /usr/bin/python3 ./buildtools/bin/waf -j2 build "--targets=$names") \
    >"$tree/headers.log" 2>&1 \
    || die_with_log "$tree/headers.log" "generating the headers of Samba failed" \
      "install the program that is missing above (apt-get install), and run this again"
}

check_versions() {
  local interface built
  interface=$(sed -n 's/^#define SMB_VFS_INTERFACE_VERSION //p' "$source/source3/include/vfs.h")
  [ "$interface" = "$interface_wanted" ] || die "this Samba $release has VFS interface $interface, the module \
is written for $interface_wanted: port samba-module/compat to it"
  built=$(sed -n 's/^#  define SAMBA_VERSION_STRING "\(.*\)"/\1/p' "$generated/version.h")
  [ "$built" = "$running" ] || die "$source is Samba $built, installed is $running: remove $tree and build again"
  # A package newer than the running smbd would give a module that does not load after the next restart.
  local node
  node=SAMBA_$(echo "$running$library_suffix" | tr 'a-z+-' 'A-Z__')
  objdump -p "$private_libraries/libsmbd-base$library_suffix.so.0" | grep -F "$node" >/dev/null \
    || die "the private libraries in $private_libraries are not of Samba $running"
}

compile() {
  local module_file=smbpool-$running.so objects= file object
  local flags=(-std=gnu11 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Werror
    -D_SAMBA_BUILD_=4 -DHAVE_CONFIG_H=1 -D_GNU_SOURCE=1 -D_XOPEN_SOURCE_EXTENDED=1 -D__STDC_WANT_LIB_EXT1__=1
    "-DSMBPOOL_MODULE_VERSION=\"$running\"" -I"$here/samba-module" -I"$here/native/shared")
  local directory
  for directory in "$generated/include" "$generated/source3" "$generated/source3/include" "$generated" \
    "$source/source3" "$source/source3/include" "$source/source3/lib" "$source/source3/smbd" "$source/lib/replace" \
    "$generated/lib/replace" "$source" "$source/lib" "$generated/lib" "$source/lib/ldb/include" "$source/librpc" \
    "$generated/librpc" "$source/libcli"; do
    flags+=(-isystem "$directory")
  done
  [ -z "$sanitize" ] || flags+=(-fsanitize=address,undefined -fno-omit-frame-pointer)
  mkdir -p "$out/objects"
  for file in "$here"/samba-module/{.,hooks,client,map}/*.c; do
    object=$out/objects/$(basename "$file" .c).o
    nice -n 10 gcc "${flags[@]}" -c "$file" -o "$object"
    objects="$objects $object"
  done
  local private=()
  for file in smbd-base smbd-shim samba-debug samba3-util samba-sockets time-basic sys-rw messages-util replace; do
    private+=("-l:lib$file$library_suffix.so.0")
  done
  # shellcheck disable=SC2086
  nice -n 10 gcc -shared ${sanitize:+-fsanitize=address,undefined} -o "$out/$module_file" $objects \
    -Wl,-z,defs -Wl,-z,relro -Wl,-rpath-link,"$private_libraries" -L"$private_libraries" \
    "${private[@]}" -l:libsamba-util.so.0 -l:libsmbconf.so.0 -l:libsamba-errors.so.1 \
    -l:libtalloc.so.2 -l:libtevent.so.0 -l:libtevent-util.so.0
  nice -n 10 gcc -std=gnu11 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror -shared -o "$out/smbpool.so" \
    "-DSMBPOOL_SAMBA_VERSION=\"$running\"" "-DSMBPOOL_MODULE_FILE=\"$module_file\"" "$here/samba-module/loader/loader.c"
  echo "build-module: built $out/$module_file"
}

# By rename: smbd processes that run have the old file mapped and would crash if it were overwritten.
install_files() {
  local directory=$1 file
  [ "$directory" = default ] && directory=$private_libraries/vfs
  mkdir -p "$directory"
  for file in "smbpool-$running.so" smbpool.so; do
    install -m 0644 "$out/$file" "$directory/.$file.new"
    mv -f "$directory/.$file.new" "$directory/$file"
  done
  if [ "$install_to" = default ]; then
    install -D -m 0644 "$here/samba-module/doc/vfs_smbpool.8" /usr/local/share/man/man8/vfs_smbpool.8
  fi
  echo "build-module: installed in $directory; smbd processes started from now on use it"
}

prepare_source
check_versions
compile
if [ "$install_to" ]; then install_files "$install_to"; fi
