#!/usr/bin/env python3
"""A conversation with `nix-store --serve`, recorded once and played again.

usage: serve_tape.py record FILE COMMAND...   runs COMMAND between stdin and stdout and writes FILE
       serve_tape.py play FILE                is that COMMAND: answers what was recorded

FILE is a list of chunks in the order in which they passed: `> N` and N bytes to the server, or
`< N` and N bytes from it. The player insists on the very same requests, byte by byte, however they
are cut; it sends each answer as soon as what came before it has been asked.
"""
import os
import selectors
import subprocess
import sys


def record(path, command):
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    routes = {0: (">", server.stdin.fileno()), server.stdout.fileno(): ("<", 1)}
    poll = selectors.DefaultSelector()
    for fd in routes:
        poll.register(fd, selectors.EVENT_READ)
    with open(path, "wb") as tape:
        while poll.get_map():
            for key, _ in poll.select():
                data = os.read(key.fd, 65536)
                sign, out = routes[key.fd]
                if not data:
                    poll.unregister(key.fd)
                    os.close(out)
                    continue
                tape.write(b"%s %d\n" % (sign.encode(), len(data)) + data)
                while data:
                    data = data[os.write(out, data):]
    return server.wait()


def chunks(path):
    with open(path, "rb") as tape:
        while head := tape.readline():
            sign, count = head.split()
            yield sign.decode(), tape.read(int(count))


def read_exactly(count):
    data = b""
    while len(data) < count and (more := os.read(0, count - len(data))):
        data += more
    return data


def play(path):
    asked = 0
    for sign, data in chunks(path):
        if sign == ">":
            got = read_exactly(len(data))
            if got != data:
                at = next((i for i, (a, b) in enumerate(zip(got, data)) if a != b), len(got))
                sys.exit(f"serve_tape: {path}: another request at byte {asked + at}: "
                         f"{got[at:at + 24].hex()} instead of {data[at:at + 24].hex()}")
            asked += len(data)
        else:
            while data:
                data = data[os.write(1, data):]
    if os.read(0, 1):
        sys.exit(f"serve_tape: {path}: more requests than were recorded")
    return 0


def main(verb, path, *command):
    sys.exit(record(path, command) if verb == "record" else play(path))


main(*sys.argv[1:])
