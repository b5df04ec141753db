"""SMB load: opens and closes, as fast as the answers come, and prints what it took as JSON.

Usage: smb_load.py WORKLOAD SECONDS USER PASSWORD ADDRESS...
  own        one client opens and closes a file of its own at the first server
  alternate  one client opens and closes one file at the first and the second server in turn
  directory  two clients per server open and close one directory
  crowd      eight clients per server open and close one directory

Logging on is impacket's work; the load itself is two packets made once, in which only numbers are replaced, so that
little of the time is this program's. Each client is a process; all measure the same stretch of time.
"""
import json
import os
import struct
import sys
import time

from impacket.smb3 import SMB3
from impacket.smb3structs import SMB2_DIALECT_30

CREATE, CLOSE = 5, 6
PENDING = 0x103
OPEN_IF = 3
READ_WRITE = 0x0012019F
READ_ATTRIBUTES = 0x00000080
SHARE_ALL = 7
DIRECTORY, NON_DIRECTORY = 0x1, 0x40
CLIENTS_PER_SERVER = {'directory': 2, 'crowd': 8}
WARM_UP_SECONDS = 0.2
# a folder is delegated when it has been opened for a second and a bit
FOLDER_WARM_UP_SECONDS = 2
SHARE = 'pool'


class Connection:
    """One logged-on connection with the packets of one open and one close."""

    def __init__(self, address, user, password, path, directory):
        smb = SMB3(address, address, timeout=60, preferredDialect=SMB2_DIALECT_30)
        smb.login(user, password)
        self.tree = smb.connectTree('\\\\%s\\%s' % (address, SHARE))
        self.session = smb._Session['SessionID']
        self.message = smb._Connection['SequenceWindow']
        self.smb = smb
        self.socket = smb._NetBIOSSession.get_socket()
        self.socket.settimeout(None)
        name = path.encode('utf-16le')
        access, kind = (READ_ATTRIBUTES, DIRECTORY) if directory else (READ_WRITE, NON_DIRECTORY)
        create = struct.pack('<HBBIQQIIIIIHHII', 57, 0, 0, 2, 0, 0, access, 0x80, SHARE_ALL, OPEN_IF, kind, 120,
                             len(name), 0, 0) + name
        self.create = self.packet(CREATE, create)
        self.close = self.packet(CLOSE, struct.pack('<HHI16s', 24, 0, 0, b''))

    def packet(self, command, body):
        header = struct.pack('<4sHHIHHIIQIIQ16s', b'\xfeSMB', 64, 1, 0, command, 8, 0, 0, 0, 0, self.tree, self.session,
                             b'')
        return bytearray(struct.pack('>I', len(header) + len(body)) + header + body)

    def exchange(self, packet):
        struct.pack_into('<Q', packet, 28, self.message)
        self.message += 1
        self.socket.sendall(packet)
        while True:
            answer = self.receive()
            status = struct.unpack_from('<I', answer, 8)[0]
            if status == 0:
                return answer
            if status != PENDING:
                raise RuntimeError('status 0x%08X' % status)

    def receive(self):
        data = self.socket.recv(4096)
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], 'big'):
            more = self.socket.recv(4096)
            if not more:
                raise RuntimeError('the server closed the connection')
            data += more
        return data[4:]

    def open_close(self):
        answer = self.exchange(self.create)
        # of the answer's body, bytes 64 to 80 are the handle
        self.close[76:92] = answer[128:144]
        self.exchange(self.close)


def load(connections, start, seconds, warm_up):
    """Latencies of open and close together, in microseconds."""
    start.read()
    begin_at = time.monotonic() + warm_up
    latencies = []
    while True:
        for connection in connections:
            begin = time.monotonic()
            connection.open_close()
            end = time.monotonic()
            if begin >= begin_at:
                latencies.append((end - begin) * 1e6)
            if end >= begin_at + seconds:
                return latencies


def main():
    workload, seconds, user, password = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4]
    servers = sys.argv[5:]
    if workload == 'own':
        clients, directory, path = [servers[:1]], False, 'own.txt'
    elif workload == 'alternate':
        clients, directory, path = [servers[:2]], False, 'alternate.txt'
    else:
        clients = [[server] for server in servers] * CLIENTS_PER_SERVER[workload]
        directory, path = True, 'folder'
    warm_up = FOLDER_WARM_UP_SECONDS if directory else WARM_UP_SECONDS
    start_read, start_write = os.pipe()
    results = []
    for addresses in clients:
        result_read, result_write = os.pipe()
        ready_read, ready_write = os.pipe()
        if os.fork() == 0:
            os.close(start_write)
            connections = [Connection(address, user, password, path, directory) for address in addresses]
            os.write(ready_write, b'r')
            latencies = load(connections, os.fdopen(start_read, 'rb'), seconds, warm_up)
            with os.fdopen(result_write, 'w') as out:
                json.dump(latencies, out)
            os._exit(0)
        os.close(result_write)
        os.close(ready_write)
        if os.read(ready_read, 1) != b'r':
            sys.exit('a client could not log on')
        results.append(os.fdopen(result_read))
    # the end of the pipe is the start
    os.close(start_write)
    per_client = [json.load(result) for result in results]
    latencies = sorted(latency for client in per_client for latency in client)
    if not latencies:
        sys.exit('nothing was done in time')
    count = len(latencies)
    json.dump({
        'workload': workload, 'clients': len(clients), 'seconds': seconds, 'warmUpSeconds': warm_up,
        'operations': count, 'calls': 0,
        'fairness': min(map(len, per_client)) * len(clients) / count, 'backwards': 0,
        'latency': {'count': count, 'medianMicros': latencies[count // 2], 'p99Micros': latencies[count * 99 // 100],
                    'maxMicros': latencies[-1]},
    }, sys.stdout)


main()
