"""Cuts an smbd's VFS module off from smbpoold, and leaves everything else of the smbd as it is: shuts the socket down
that came with the shared memory, which is what the smbd would see of a daemon that let go of it.
Usage: cut_ring.py PID   Prints how many sockets were cut.
"""
import ctypes
import os
import re
import socket
import sys

SYS_PIDFD_GETFD = 438  # the same number on all architectures
SEQPACKET = '0005'     # in /proc/net/unix; smbd has no other socket of this kind


def main():
    pid = int(sys.argv[1])
    with open('/proc/%d/net/unix' % pid) as table:
        rings = {line.split()[6] for line in table if line.split()[4] == SEQPACKET}
    process = os.pidfd_open(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    cut = 0
    for number in os.listdir('/proc/%d/fd' % pid):
        try:
            found = re.match(r'socket:\[(\d+)\]', os.readlink('/proc/%d/fd/%s' % (pid, number)))
        except FileNotFoundError:
            continue
        if not found or found.group(1) not in rings:
            continue
        ours = libc.syscall(SYS_PIDFD_GETFD, process, int(number), 0)
        if ours < 0:
            raise OSError(ctypes.get_errno(), 'pidfd_getfd')
        socket.socket(fileno=ours).shutdown(socket.SHUT_RDWR)
        cut += 1
    print(cut)


if __name__ == '__main__':
    main()
