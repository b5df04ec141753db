#!/bin/bash
# Tests of the VFS module and the ring that need no smbd: pure mapping and ring (cmocka), the module's client and the
# ring server against hostile and dying clients, a gate that is killed, all under the address and undefined-behaviour
# sanitizers; and what a look at the lease costs.
#   test-module.sh [SECONDS of fuzzing, default 10]     SEED=n repeats a fuzz run's choices
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
out=$here/dist/native-test
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
c_flags="-std=gnu11 -O1 -g -Wall -Wextra -Werror $sanitize -I$here/native/shared"
cc_flags="-std=c++17 -O1 -g -Wall -Wextra -Wconversion -Werror $sanitize -I$here/native/shared"
mkdir -p "$out"

# shellcheck disable=SC2086
{
  gcc $c_flags -o "$out/test_map" "$here"/samba-module/test/test_map.c "$here"/samba-module/map/map.c -lcmocka
  gcc $c_flags -o "$out/test_ring" "$here"/samba-module/test/test_ring.c -lcmocka -lpthread
  gcc $c_flags -c -o "$out/ring_client.o" "$here"/samba-module/client/ring_client.c
  server="$here/native/core/ring_server.cc $here/native/core/ring_page.cc"
  g++ $cc_flags -o "$out/ring_daemon" "$here"/native/test/ring_daemon.cc $server
  g++ $cc_flags -o "$out/ring_server_test" "$here"/native/test/ring_server_test.cc $server "$out/ring_client.o"
  # The fuzzer casts freely; -Wconversion is for the code that ships.
  g++ ${cc_flags/-Wconversion/} -o "$out/ring_fuzz" "$here"/native/test/ring_fuzz.cc $server "$out/ring_client.o"
  gate=$(printf "$here/native/core/%s.cc " gate batch kept_streams standby_link)
  g++ $cc_flags -o "$out/gate_kill_test" "$here"/native/test/gate_kill_test.cc $gate
  # Measures, so it is compiled as the module is: each file by itself, without sanitizers.
  gcc -std=gnu11 -O2 -g -fPIC -Wall -Wextra -Werror -I"$here/native/shared" -o "$out/fence_cost" \
    "$here"/samba-module/test/fence_cost.c "$here"/samba-module/{client/ring_client.c,map/map.c} -lpthread
}
"$out/test_map"
"$out/test_ring"
"$out/fence_cost" 100000
"$out/ring_server_test"
"$out/gate_kill_test"
"$out/ring_fuzz" "${1:-10}"
