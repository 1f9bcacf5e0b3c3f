#!/usr/bin/env python3
"""Runs a command of fleet's at a terminal of its own, and closes that terminal in the middle.

usage: closed_tty.py RUNS PATTERN COMMAND...

RUNS is the folder of the runs' journals. Once the new run's has a line that matches PATTERN the
terminal is closed. Prints "run ID", and "exit STATUS" or, where it doesn't end within a minute or
so, "exit none"; then the CPU time that it took.
"""

import os
import pty
import re
import resource
import select
import signal
import sys
import time

PATIENCE_S = 75


def journal_of(runs, known, pattern):
    """The new run's id, once its journal has such a line; else None."""
    for run in set(os.listdir(runs) if os.path.isdir(runs) else []) - known:
        try:
            with open(os.path.join(runs, run, "journal.jsonl"), encoding="utf-8") as file:
                if any(re.search(pattern, line) for line in file):
                    return run
        except OSError:
            pass
    return None


def drain(fd, seconds):
    """What a person would see; nobody reads it here, and it must not fill up."""
    if select.select([fd], [], [], seconds)[0]:
        try:
            os.read(fd, 65536)
        except OSError:
            time.sleep(seconds)


def end_of(pid):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "none"


def main():
    runs, pattern, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    known = set(os.listdir(runs) if os.path.isdir(runs) else [])
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    deadline = time.monotonic() + PATIENCE_S
    run = None
    while run is None and time.monotonic() < deadline:
        drain(terminal, 0.1)
        run = journal_of(runs, known, pattern)
    os.close(terminal)
    print("run", run)
    print("exit", end_of(pid))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"cpu {used.ru_utime + used.ru_stime:.1f}")


main()
