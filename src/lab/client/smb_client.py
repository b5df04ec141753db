"""One SMB2 client connection, driven by lines of JSON: for the lab's demo and tests, which need what smbclient cannot
hold: open handles with a share mode, byte-range locks, oplocks and leases, and their breaks.

Standard input: one request per line, {"id": 1, "op": "open", ...}; several may be under way at once. Standard output:
one answer per line, {"id": 1, "status": "OK", ...}, and events, {"event": "break", ...}. Every line carries "at",
seconds on the machine-wide monotonic clock: of an answer or event, when it came; "sent", when the request went out.

Logging on is impacket's work; what follows is packed here, because impacket cannot have two requests under way.
Usage: smb_client.py ADDRESS SHARE USER PASSWORD
"""
import json
import os
import select
import struct
import sys
import time

from impacket.smb3 import SMB3
from impacket.smb3structs import SMB2_DIALECT_30

CREATE, CLOSE, READ, WRITE, LOCK, CANCEL, ECHO, NOTIFY, SET_INFO, BREAK = 5, 6, 8, 9, 10, 12, 13, 15, 17, 18
ASYNC_FLAG = 2
PENDING = 0x103
UNSOLICITED = 0xFFFFFFFFFFFFFFFF
HEADER_BYTES = 64
ANSWER_SECONDS_MAX = 60

STATUS = {
    0x00000000: 'OK', 0xC0000043: 'SHARING_VIOLATION', 0xC0000034: 'OBJECT_NAME_NOT_FOUND',
    0xC0000035: 'OBJECT_NAME_COLLISION', 0xC0000022: 'ACCESS_DENIED', 0xC0000056: 'DELETE_PENDING',
    0xC0000055: 'LOCK_NOT_GRANTED', 0xC0000054: 'FILE_LOCK_CONFLICT', 0xC000007E: 'RANGE_NOT_LOCKED',
    0xC0000128: 'FILE_CLOSED', 0xC0000011: 'END_OF_FILE', 0xC000006D: 'LOGON_FAILURE', 0xC0000120: 'CANCELLED',
    0xC000003A: 'OBJECT_PATH_NOT_FOUND', 0xC0000123: 'FILE_DELETED', 0xC00000E3: 'INVALID_OPLOCK_PROTOCOL',
    0x0000010B: 'NOTIFY_CLEANUP', 0x0000010C: 'NOTIFY_ENUM_DIR',
}
ACCESS = {'read': 0x00120089, 'write': 0x00120116, 'delete': 0x00010000}
SHARE = {'r': 1, 'w': 2, 'd': 4}
DISPOSITION = {'supersede': 0, 'open': 1, 'create': 2, 'open_if': 3, 'overwrite': 4, 'overwrite_if': 5}
OPLOCK = {'none': 0x00, 'level2': 0x01, 'exclusive': 0x08, 'batch': 0x09, 'lease': 0xFF}
OPLOCK_NAME = {value: name for name, value in OPLOCK.items()}
LEASE = {'R': 1, 'H': 2, 'W': 4}
LEASE_BREAK_IN_PROGRESS = 2
DELETE_ON_CLOSE = 0x00001000
NON_DIRECTORY = 0x00000040
DIRECTORY = 0x00000001
WATCH_TREE = 1
ACTION = {1: 'added', 2: 'removed', 3: 'modified', 4: 'renamed from', 5: 'renamed to'}


def status_name(code):
    return STATUS.get(code, '0x%08X' % code)


def lease_bits(text):
    return sum(LEASE[letter] for letter in text)


def lease_text(bits):
    return ''.join(letter for letter in 'RWH' if bits & LEASE[letter])


def emit(line):
    sys.stdout.write(json.dumps(line) + '\n')
    sys.stdout.flush()


def context(tag, data):
    """One create context, without the offset to the next."""
    body = struct.pack('<HHHHI', 16, len(tag), 0, 24 if data else 0, len(data)) + tag + b'\0' * 4 + data
    return body + b'\0' * (-(len(body) + 4) % 8)


def chain(contexts):
    result = b''
    for index, body in enumerate(contexts):
        last = index == len(contexts) - 1
        result += struct.pack('<I', 0 if last else len(body) + 4) + body
    return result


def split_contexts(data):
    found = {}
    while len(data) >= 16:
        following, name_at, name_length, _, data_at, data_length = struct.unpack_from('<IHHHHI', data)
        found[data[name_at:name_at + name_length]] = data[data_at:data_at + data_length]
        if following == 0:
            break
        data = data[following:]
    return found


class Client:
    def __init__(self, address, share, user, password):
        self.smb = SMB3(address, address, timeout=ANSWER_SECONDS_MAX, preferredDialect=SMB2_DIALECT_30)
        self.smb.login(user, password)
        self.tree = self.smb.connectTree('\\\\%s\\%s' % (address, share))
        self.net = self.smb._NetBIOSSession
        self.session = self.smb._Session['SessionID']
        self.message = self.smb._Connection['SequenceWindow']
        self.waiting = {}    # message id -> the number smbd gave a request that waits
        self.given_up = set()  # message ids to be cancelled as soon as smbd says that the request waits
        self.pending = {}    # message id -> (request, function that reads the answer, time sent)
        self.handles = {}    # our number -> file id, 16 bytes
        self.levels = {}     # our number -> oplock level held
        self.leases = {}     # lease key -> our number
        self.next_handle = 1
        self.automatic = True

    def send(self, command, body, request, read):
        message = self.message
        self.message += 1
        header = struct.pack('<4sHHIHHIIQIIQ16s', b'\xfeSMB', 64, 1, 0, command, 64, 0, 0, message, 0, self.tree,
                             self.session, b'')
        self.pending[message] = (request, read, time.monotonic())
        self.net.send_packet(header + body)

    # --- requests

    def request(self, request):
        getattr(self, 'do_' + request['op'])(request)

    def do_automatic(self, request):
        """Whether breaks are acknowledged at once (the default) or by "acknowledge"."""
        self.automatic = request['on']
        emit({'id': request['id'], 'status': 'OK', 'at': time.monotonic()})

    def do_open(self, request):
        name = request['path'].replace('/', '\\').encode('utf-16le')
        access = sum(ACCESS[word] for word in request.get('access', ['read', 'write']))
        if set(request.get('access', [])) >= {'read', 'write'} or 'access' not in request:
            access = ACCESS['read'] | ACCESS['write']
        if 'delete' in request.get('access', []):
            access |= ACCESS['delete']
        share = sum(SHARE[letter] for letter in request.get('share', 'rwd'))
        options = DIRECTORY if request.get('folder') else NON_DIRECTORY
        options |= DELETE_ON_CLOSE if request.get('deleteOnClose') else 0
        contexts = [context(b'QFid', b'')]
        oplock = OPLOCK[request.get('oplock', 'none')]
        key = None
        if 'lease' in request:
            oplock = OPLOCK['lease']
            key = bytes.fromhex(request['leaseKey']) if 'leaseKey' in request else os.urandom(16)
            contexts.append(context(b'RqLs', struct.pack('<16sIIQ', key, lease_bits(request['lease']), 0, 0)))
        # fixed part 56 bytes, then the name, then the contexts on an 8-byte boundary
        name_at = HEADER_BYTES + 56
        padded = name + b'\0' * (-(name_at + len(name)) % 8)
        contexts_bytes = chain(contexts)
        body = struct.pack('<HBBIQQIIIIIHHII', 57, 0, oplock, 2, 0, 0, access, 0x80, share,
                           DISPOSITION[request.get('disposition', 'open_if')], options, name_at, len(name),
                           name_at + len(padded), len(contexts_bytes)) + padded + contexts_bytes
        self.send(CREATE, body, request, lambda data: self.read_open(data, key))

    def read_open(self, data, key):
        oplock = data[2]
        last_write, size = struct.unpack_from('<Q', data, 24)[0], struct.unpack_from('<Q', data, 48)[0]
        at, length = struct.unpack_from('<II', data, 80)
        contexts = split_contexts(data[at - HEADER_BYTES:at - HEADER_BYTES + length]) if length else {}
        handle = self.next_handle
        self.next_handle += 1
        self.handles[handle] = data[64:80]
        self.levels[handle] = oplock
        answer = {'handle': handle, 'oplock': OPLOCK_NAME.get(oplock, str(oplock)), 'size': size,
                  'lastWrite': str(last_write), 'fileId': contexts.get(b'QFid', b'')[:16].hex()}
        if b'RqLs' in contexts:
            state, flags = struct.unpack_from('<II', contexts[b'RqLs'], 16)
            answer.update(lease=lease_text(state), leaseIsBreaking=bool(flags & LEASE_BREAK_IN_PROGRESS))
            self.leases[key] = handle
        return answer

    def do_close(self, request):
        handle = request['handle']
        body = struct.pack('<HHI16s', 24, 0, 0, self.handles[handle])
        self.send(CLOSE, body, request, lambda data: self.forget(handle))

    def forget(self, handle):
        del self.handles[handle]
        del self.levels[handle]
        return {}

    def do_read(self, request):
        body = struct.pack('<HBBIQ16sIIIHHB', 49, 0x50, 0, request.get('length', 65536), request.get('offset', 0),
                           self.handles[request['handle']], 0, 0, 0, 0, 0, 0)
        self.send(READ, body, request, self.read_read)

    @staticmethod
    def read_read(data):
        at, length = data[2] - HEADER_BYTES, struct.unpack_from('<I', data, 4)[0]
        return {'data': data[at:at + length].decode('latin1')}

    def do_write(self, request):
        data = request['data'].encode('latin1')
        body = struct.pack('<HHIQ16sIIHHI', 49, HEADER_BYTES + 48, len(data), request.get('offset', 0),
                           self.handles[request['handle']], 0, 0, 0, 0, 0) + data
        self.send(WRITE, body, request, lambda data: {})

    def do_lock(self, request):
        flags = 4 if request.get('unlock') else (2 if request.get('exclusive', True) else 1)
        if not request.get('wait') and not request.get('unlock'):
            flags |= 0x10
        body = struct.pack('<HHI16sQQII', 48, 1, 0, self.handles[request['handle']], request['offset'],
                           request['length'], flags, 0)
        self.send(LOCK, body, request, lambda data: {})

    def do_watch(self, request):
        """Change notify: answered with what changes next in the folder."""
        body = struct.pack('<HHI16sII', 32, WATCH_TREE if request.get('recursive') else 0, 65536,
                           self.handles[request['handle']], request['filter'], 0)
        self.send(NOTIFY, body, request, self.read_changes)

    @staticmethod
    def read_changes(data):
        at, length = struct.unpack_from('<HI', data, 2)
        rest = data[at - HEADER_BYTES:at - HEADER_BYTES + length]
        changes = []
        while len(rest) >= 12:
            following, action, name_bytes = struct.unpack_from('<III', rest)
            name = rest[12:12 + name_bytes].decode('utf-16le').replace('\\', '/')
            changes.append({'action': ACTION.get(action, str(action)), 'name': name})
            if following == 0:
                break
            rest = rest[following:]
        return {'changes': changes}

    def do_echo(self, request):
        """Answered when all that was sent before has been taken."""
        self.send(ECHO, struct.pack('<HH', 4, 0), request, lambda data: {})

    def do_cancel(self, request):
        """Gives up a request that waits, "request" its id; that is then answered CANCELLED, unless it was quicker."""
        for message, (waiting, _, _) in self.pending.items():
            if waiting['id'] != request['request']:
                continue
            if message in self.waiting:
                self.cancel(message)
            else:
                self.given_up.add(message)
        emit({'id': request['id'], 'status': 'OK', 'at': time.monotonic()})

    def cancel(self, message):
        self.net.send_packet(struct.pack('<4sHHIHHIIQQQ16s', b'\xfeSMB', 64, 0, 0, CANCEL, 0, ASYNC_FLAG, 0,
                                         message, self.waiting[message], self.session, b'') +
                             struct.pack('<HH', 4, 0))

    def set_info(self, request, information_class, buffer):
        body = struct.pack('<HBBIHHI16s', 33, 1, information_class, len(buffer), HEADER_BYTES + 32, 0, 0,
                           self.handles[request['handle']]) + buffer
        self.send(SET_INFO, body, request, lambda data: {})

    def do_rename(self, request):
        name = request['to'].replace('/', '\\').encode('utf-16le')
        self.set_info(request, 10, struct.pack('<B7xQI', 1 if request.get('replace') else 0, 0, len(name)) + name)

    def do_truncate(self, request):
        self.set_info(request, 20, struct.pack('<Q', request['size']))

    def do_delete(self, request):
        """Marks the open file for deletion when it is closed."""
        self.set_info(request, 13, b'\x01')

    # --- breaks

    def do_acknowledge(self, request):
        if 'leaseKey' in request:
            body = struct.pack('<HHI16sIQ', 36, 0, 0, bytes.fromhex(request['leaseKey']), lease_bits(request['to']), 0)
        else:
            body = struct.pack('<HBBI16s', 24, OPLOCK[request['to']], 0, 0, self.handles[request['handle']])
        self.send(BREAK, body, request, lambda data: {})

    def on_break(self, data):
        event = {'event': 'break', 'at': time.monotonic()}
        if struct.unpack_from('<H', data)[0] == 44:
            flags, key, before, after = struct.unpack_from('<I16sII', data, 4)
            event.update(handle=self.leases.get(key), leaseKey=key.hex(), to=lease_text(after),
                         acknowledge=bool(flags & 1), **{'from': lease_text(before)})
        else:
            file_id = data[8:24]
            handle = next((number for number, known in self.handles.items() if known == file_id), None)
            # the end of a level2 oplock is only told; acknowledging it is an error
            before = self.levels.get(handle, OPLOCK['none'])
            event.update(handle=handle, to=OPLOCK_NAME.get(data[2], str(data[2])),
                         acknowledge=before in (OPLOCK['exclusive'], OPLOCK['batch']))
            self.levels[handle] = data[2]
        emit(event)
        if self.automatic and event['handle'] is not None and event['acknowledge']:
            about = {k: event[k] for k in ('handle', 'leaseKey', 'to') if k in event}
            request = {'id': 0, 'op': 'acknowledge', **about}
            self.do_acknowledge(request)

    # --- the loop

    def on_packet(self):
        packet = self.net.recv_packet(ANSWER_SECONDS_MAX).get_trailer()
        status = struct.unpack_from('<I', packet, 8)[0]
        message = struct.unpack_from('<Q', packet, 24)[0]
        if message == UNSOLICITED:
            return self.on_break(packet[HEADER_BYTES:])
        if message not in self.pending:
            return None
        if status == PENDING:
            self.waiting[message] = struct.unpack_from('<Q', packet, 32)[0]
            if message in self.given_up:
                self.cancel(message)
            return None
        self.waiting.pop(message, None)
        self.given_up.discard(message)
        request, read, sent = self.pending.pop(message)
        answer = {'id': request['id'], 'status': status_name(status), 'sent': sent, 'at': time.monotonic()}
        if status == 0:
            answer.update(read(packet[HEADER_BYTES:]))
        return emit(answer)

    def run(self):
        socket = self.net.get_socket()
        text = b''
        while True:
            ready, _, _ = select.select([0, socket], [], [])
            if socket in ready:
                self.on_packet()
            if 0 in ready:
                chunk = os.read(0, 65536)
                if not chunk:
                    return
                text += chunk
                *lines, text = text.split(b'\n')
                for line in lines:
                    self.request(json.loads(line))


def main():
    try:
        client = Client(*sys.argv[1:5])
    except Exception as error:  # impacket has several kinds; all mean that there is no connection
        code = getattr(error, 'get_error_code', lambda: None)()
        emit({'event': 'failed', 'status': status_name(code) if code is not None else str(error),
              'at': time.monotonic()})
        return 1
    emit({'event': 'connected', 'at': time.monotonic()})
    try:
        client.run()
    except (OSError, EOFError) as error:
        emit({'event': 'lost', 'status': str(error), 'at': time.monotonic()})
        return 1
    except Exception as error:  # a request that makes no sense: the driver's fault, and it should see it
        emit({'event': 'lost', 'status': '%s: %s' % (type(error).__name__, error), 'at': time.monotonic()})
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
