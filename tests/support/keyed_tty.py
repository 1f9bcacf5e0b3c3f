#!/usr/bin/env python3
"""Runs fleet at a terminal of its own and does things there as its journal grows.

usage: keyed_tty.py RUNS [PATTERN ACTION]... -- COMMAND...

RUNS is the folder of the runs' journals. Each action waits until a line of the new run's journal
matches its pattern, and comes after the one before:
  keys:TEXT    types it (Python's escapes: \\r is Enter, \\x1b Escape)
  touch:PATH   makes a file
  close        closes the terminal
Prints "run ID", and "exit STATUS" or, where it doesn't end in time, "exit none".
"""

import os
import pty
import re
import select
import signal
import sys
import time

PATIENCE_S = 75
KEY_S = 0.15  # longer than what tells a lone Escape from a sequence


class Terminal:
    def __init__(self, command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execvp(command[0], command)

    def drain(self, seconds):
        """What a person would see; nobody reads it here, and it must not fill up."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.fd is None or not select.select([self.fd], [], [], end - time.monotonic())[0]:
                time.sleep(max(0, end - time.monotonic()))
                return
            try:
                os.read(self.fd, 65536)
            except OSError:
                self.close()

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def act(self, action):
        kind, _, rest = action.partition(":")
        if kind == "keys":
            for key in rest.encode().decode("unicode_escape"):
                os.write(self.fd, key.encode())
                self.drain(KEY_S)
        elif kind == "touch":
            with open(rest, "w", encoding="utf-8"):
                pass
        else:
            self.close()

    def end(self):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                return str(os.waitstatus_to_exitcode(status))
            self.drain(0.1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return "none"


def find(runs, known, pattern):
    """The new run's id, once its journal has such a line; else None."""
    for run in set(os.listdir(runs) if os.path.isdir(runs) else []) - known:
        try:
            with open(os.path.join(runs, run, "journal.jsonl"), encoding="utf-8") as file:
                if any(re.search(pattern, line) for line in file):
                    return run
        except OSError:
            pass
    return None


def main():
    cut = sys.argv.index("--")
    runs, steps = sys.argv[1], sys.argv[2:cut]
    known = set(os.listdir(runs) if os.path.isdir(runs) else [])
    terminal = Terminal(sys.argv[cut + 1:])
    run = None
    for pattern, action in zip(steps[::2], steps[1::2]):
        deadline = time.monotonic() + PATIENCE_S
        while (found := find(runs, known, pattern)) is None and time.monotonic() < deadline:
            terminal.drain(0.1)
        if found is None:
            print("nothing matched", pattern)
            break
        run = found
        terminal.act(action)
    print("run", run)
    print("exit", terminal.end())
    terminal.close()


main()
