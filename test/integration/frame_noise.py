"""Disturbs a lab's interconnect from the root namespace, for bad-input.test.ts: captures the frames that one server
sends and gives another server's interface garbage, truncated, altered and replayed ones. Prints how many, as JSON.
Usage: frame_noise.py CAPTURE_INTERFACE INJECT_INTERFACE SECONDS SEED
"""
import json
import random
import socket
import struct
import sys
import time

ETHERTYPE = 0x88B5
# the interface is a port of a bridge, which takes frames away before a socket for one EtherType would see them
ETH_P_ALL = 3
ETHERNET_HEADER_BYTES = 14
# a captured frame is kept for replays; more would not be another kind of replay
CAPTURED_MAX = 200
# enough to notice any harm, without starving the two processors of a small machine
FRAMES_PER_SECOND = 500


def garbage(frame, rng):
    return frame[:ETHERNET_HEADER_BYTES] + rng.randbytes(rng.randrange(0, 1400))


def truncated(frame, rng):
    return frame[:rng.randrange(ETHERNET_HEADER_BYTES, len(frame))]


def altered(frame, rng):
    at = rng.randrange(ETHERNET_HEADER_BYTES, len(frame))
    return frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1:]


def replayed(frame, rng):
    return frame


def main():
    capture_on, inject_on, seconds, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    source = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    source.bind((capture_on, ETH_P_ALL))
    source.settimeout(0.001)
    target = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    target.bind((inject_on, 0))
    captured, sent = [], {}
    next_at = time.monotonic()
    end = next_at + seconds
    while time.monotonic() < end:
        try:
            frame, (_, _, direction, *_) = source.recvfrom(2048)
            ours = direction != socket.PACKET_OUTGOING and frame[12:14] == struct.pack('>H', ETHERTYPE)
            if ours and len(captured) < CAPTURED_MAX:
                captured.append(frame)
            elif ours:
                captured[rng.randrange(CAPTURED_MAX)] = frame
        except socket.timeout:
            pass
        if captured and time.monotonic() >= next_at:
            next_at += 1 / FRAMES_PER_SECOND
            kind = rng.choice([garbage, truncated, altered, replayed])
            target.send(kind(rng.choice(captured), rng))
            sent[kind.__name__] = sent.get(kind.__name__, 0) + 1
    print(json.dumps(sent))


main()
