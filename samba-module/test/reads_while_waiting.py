#!/usr/bin/python3
"""Reads on a connection while many creates of the same connection wait: the module must not slow them down.

Needs an smbd with the module (address, share, user, password as arguments, port 445) whose creates wait for a known
time, because of smbpool:delay ms or a slow daemon. Prints one line of JSON. Drives the lab's small client, which can
have several requests under way. Usage: reads_while_waiting.py ADDRESS SHARE USER PASSWORD [CREATES]
"""
import json
import os
import subprocess
import sys
import time

READS_ALONE = 400


def main():
    address, share, user, password = sys.argv[1:5]
    creates = int(sys.argv[5]) if len(sys.argv) > 5 else 100
    client = os.path.join(os.path.dirname(__file__), '../../src/lab/client/smb_client.py')
    child = subprocess.Popen(['/usr/bin/python3', client, address, share, user, password], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, bufsize=1)
    numbers = iter(range(1, 1 << 30))

    def ask(op, **fields):
        number = next(numbers)
        child.stdin.write(json.dumps({'id': number, 'op': op, **fields}) + '\n')
        return number

    def answer():
        while True:
            line = json.loads(child.stdout.readline())
            if 'id' in line:
                return line
            assert line['event'] == 'connected', line

    def once(op, **fields):
        number = ask(op, **fields)
        line = answer()
        assert line['id'] == number and line['status'] == 'OK', line
        return line

    made = []
    # the files exist, so that the creates under test are opens of existing files, which are the ones that wait
    for _ in [ask('open', path='wait%d' % index) for index in range(creates)]:
        handle = answer()
        assert handle['status'] == 'OK', handle
        made.append(handle['handle'])
    for handle in made:
        once('close', handle=handle)
    handle = once('open', path='read.txt')['handle']
    once('write', handle=handle, data='x' * 4096)

    def read():
        line = once('read', handle=handle, length=4096)
        return line['at'] - line['sent']

    alone = sorted(read() for _ in range(READS_ALONE))
    waiting = {ask('open', path='wait%d' % index): time.monotonic() for index in range(creates)}
    opened, during, handles = [], [], []
    while waiting:
        number = ask('read', handle=handle, length=4096)
        while True:
            line = answer()
            assert line['status'] == 'OK', line
            if line['id'] == number:
                # those after the first create came back compete with its answers for the processor: not counted
                if not opened:
                    during.append(line['at'] - line['sent'])
                break
            opened.append(line['at'] - line['sent'])
            handles.append(line['handle'])
            del waiting[line['id']]
    for each in handles:
        once('close', handle=each)
    child.stdin.close()
    during.sort()
    opened.sort()

    def ms(values, part):
        return round(values[min(len(values) - 1, int(len(values) * part))] * 1000, 3)

    print(json.dumps({
        'creates': creates, 'createMs': {'p50': ms(opened, .5), 'max': ms(opened, 1)},
        'readsMeanwhile': len(during), 'readMs': {'p50': ms(during, .5), 'p99': ms(during, .99)},
        'readAloneMs': {'p50': ms(alone, .5), 'p99': ms(alone, .99)},
    }))


if __name__ == '__main__':
    main()
