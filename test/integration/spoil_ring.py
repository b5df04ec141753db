"""Writes a message that makes no sense into an smbd's ring, as if the VFS module had: well formed, of an operation that
does not exist. The smbd must be idle.
Usage: spoil_ring.py PID   Prints how many rings were spoiled.
"""
import os
import struct
import sys

# native/shared/smbpool_layout.h
RING_BYTES = 36864
GENERATION_AT = 20
REQUEST_HEAD_AT = 128
REQUEST_SLOTS_AT = 4096
SLOTS = 64
SLOT_BYTES = 256
HEADER = struct.Struct('<IIII')  # length, operation, generation, sequence
MESSAGE_SLOTS_MAX = 20
NO_OPERATION = 9999


def last_sequence(ring, head, generation):
    """Of the message that ends before `head`: how many slots it takes is only in its header."""
    for slots in range(1, MESSAGE_SLOTS_MAX + 1):
        at = REQUEST_SLOTS_AT + (head - slots) % SLOTS * SLOT_BYTES
        length, operation, of, sequence = HEADER.unpack_from(ring, at)
        fits = (length + HEADER.size + SLOT_BYTES - 1) // SLOT_BYTES == slots
        if of == generation and fits and 0 < operation < 64:
            return sequence
    raise SystemExit('the ring has no message yet')


def spoil(memory, start):
    ring = bytearray(os.pread(memory, RING_BYTES, start))
    (generation,) = struct.unpack_from('<I', ring, GENERATION_AT)
    (head,) = struct.unpack_from('<I', ring, REQUEST_HEAD_AT)
    sequence = last_sequence(ring, head, generation) + 1
    message = HEADER.pack(0, NO_OPERATION, generation, sequence)
    os.pwrite(memory, message, start + REQUEST_SLOTS_AT + head % SLOTS * SLOT_BYTES)
    # no bell: the daemon looks at all heads twenty times a second
    os.pwrite(memory, struct.pack('<I', head + 1), start + REQUEST_HEAD_AT)


def main():
    pid = int(sys.argv[1])
    with open('/proc/%d/maps' % pid) as maps:
        starts = [int(line.split('-')[0], 16) for line in maps if 'smbpool-ring' in line]
    memory = os.open('/proc/%d/mem' % pid, os.O_RDWR)
    for start in starts:
        spoil(memory, start)
    print(len(starts))


if __name__ == '__main__':
    main()
