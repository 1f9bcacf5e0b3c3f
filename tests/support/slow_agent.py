#!/usr/bin/env python3
"""An SSH agent whose signatures need a person, as with a security key: a relay before a real agent.

usage: slow_agent.py SOCKET REAL-SOCKET FOLDER

Everything passes but requests to sign. Each of those makes FOLDER/asked (a line each) and waits until
there is a file FOLDER/touch, whose first word says what the person does: `yes` signs, `no` refuses,
`die` ends the agent, `garbage` answers what is no answer. Ends when its standard input does.
"""
import os
import socket
import struct
import sys
import threading
import time

SIGN_REQUEST = 13
FAILURE = b"\0\0\0\1\5"


def receive(peer, count):
    data = b""
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def message(peer):
    head = receive(peer, 4)
    return head + receive(peer, struct.unpack(">I", head)[0])


def person(folder):
    with open(os.path.join(folder, "asked"), "a", encoding="ascii") as asked:
        asked.write("to sign\n")
    path = os.path.join(folder, "touch")
    while not os.path.exists(path) or os.path.getsize(path) == 0:
        time.sleep(0.05)
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def serve(client, real, folder):
    with client, socket.socket(socket.AF_UNIX) as agent:
        agent.connect(real)
        while True:
            request = message(client)
            does = person(folder) if request[4] == SIGN_REQUEST else "yes"
            if does == "die":
                os._exit(1)
            if does == "yes":
                agent.sendall(request)
            client.sendall({"no": FAILURE, "garbage": b"\0\0\0\x09\x0e\xff\xff\xff\xff noise"}.get(does)
                           or message(agent))


def attempt(*words):
    try:
        serve(*words)
    except (EOFError, OSError):
        pass  # the other side has gone


def accept(listener, real, folder):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=attempt, args=(client, real, folder), daemon=True).start()


def main(path, real, folder):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    threading.Thread(target=accept, args=(listener, real, folder), daemon=True).start()
    sys.stdin.read()


main(*sys.argv[1:])
