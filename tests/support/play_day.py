#!/usr/bin/env python3
"""A day of a run played back into a terminal: does the dashboard keep its memory, and its bytes, in
bounds?

usage: play_day.py [--hosts N] [--every SECONDS] [--speed N]

Writes a journal of 24 hours (a probe of each host every so often, some log lines, some moves), plays
it with `fleet watch --speed`, and prints what was measured. Ends with 1 where memory at the end is
more than at a tenth of it (plus an allowance), more was written to the terminal than ten whole screens
a second, or the screen was cleared after its start. $FLEET names the program.
"""
import argparse
import json
import os
import pty
import re
import select
import sys
import tempfile
import termios
import time
from datetime import datetime, timedelta, timezone
from fcntl import ioctl
from struct import pack

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
FLEET = os.environ.get("FLEET", os.path.join(ROOT, "build/fleet"))
ROWS, COLS = 40, 120
RUN = "20261122-000000-day000"
BEGIN = datetime(2026, 11, 22, tzinfo=timezone.utc)
DAY = 24 * 3600
MARK, GOES_ON = b"paused by a person", b"probing, "
# What allocators and the first full rings may add after a tenth.
ALLOWED = 1.10
ALLOWED_KB = 4_000
# Of the whole screen: at the start, and once more where it learns its size late.
CLEARS = (b"\x1b[2J", b"\x1b[H\x1b[J")
CLEARS_MAX = 2
# A cell costs its text, and where its style is another one a few sequences.
CELL_BYTES = 40


def write_journal(path, hosts, every):
    names = [f"node{number:02d}" for number in range(hosts)]
    seq = 0
    with open(path, "w", encoding="utf-8") as file:

        def line(at, kind, **fields):
            nonlocal seq
            seq += 1
            stamp = (BEGIN + timedelta(seconds=at)).isoformat(timespec="milliseconds")
            event = {"v": 1, "seq": seq, "ts": stamp.replace("+00:00", "Z"), "run": RUN, "type": kind}
            event.update(fields)
            file.write(json.dumps(event, separators=(",", ":")) + "\n")

        line(0, "run_start", fleet="day", action="switch", git={"rev": "a1b2c3d", "dirty": False},
             hosts=names, waves=[names], policy={}, addresses={}, healthy_ms=0)
        line(0, "wave_start", wave=1)
        for name in names:
            line(0.1, "host_state", host=name, wave=1, **{"from": None}, to="probing", reason=None,
                 message=None, duration_ms=0)
        # It stands on the third line for two hours of the day, however few frames are drawn.
        marks = {}
        for part in (0.1, 0.9):
            marks[round(DAY * part)] = ("pause", {"reason": "paused"})
            marks[round(DAY * part) + 7200] = ("promote", {})
        for at in range(1, DAY):
            if at in marks:
                line(at, marks[at][0], **marks[at][1])
            for number, name in enumerate(names):
                if (at + number * 7) % every == 0:
                    turn = at // every
                    line(at + number / hosts / 2, "probe", host=name, wave=1, name=f"probe{turn % 12}",
                         ok=turn % 50 != 0, detail=f"200 in {turn % 90} ms", duration_ms=4)
                    if turn % 7 == 0:
                        line(at + 0.6, "log", host=name, wave=1, stream="activation",
                             line=f"restarting the following units: unit{turn}.service")
                    if turn % 100 == 0:
                        line(at + 0.7, "derivation", host=name, wave=1, state="building",
                             drv=f"/nix/store/x-{name}-{turn}.drv")
                        line(at + 0.7, "guard", host=name, wave=1, phase="active", deadline_ms=60000)
        line(DAY, "run_end", result="done", exit=0, counts={})
    return seq


def memory_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


class Screen:
    def __init__(self, state, speed):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
            # AddressSanitizer keeps what was freed, which looks like a leak from outside.
            os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
            for name in ("CI", "NO_COLOR"):
                os.environ.pop(name, None)
            os.execv(FLEET, [FLEET, "--state-dir", state, "-v", "watch", "--speed", str(speed)])
        ioctl(self.fd, termios.TIOCSWINSZ, pack("HHHH", ROWS, COLS, 0, 0))
        self.seen = b""
        self.clears = 0

    def take_until(self, word, seconds):
        """Reads until `word` has come; everything that was read is kept in `seen` up to 64 KB."""
        end = time.monotonic() + seconds
        while word is None or word not in self.seen:
            if time.monotonic() > end:
                sys.exit(f"no {word} within {seconds} s; the last bytes: {self.seen[-400:]!r}")
            if not select.select([self.fd], [], [], 1)[0]:
                continue
            try:
                data = os.read(self.fd, 1 << 16)
            except OSError:
                return
            for clear in CLEARS:  # of the bytes before as many as one that is cut may have
                self.clears += (self.seen[-len(clear) + 1 :] + data).count(clear)
            self.seen = (self.seen + data)[-65536:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--every", type=int, default=60)
    parser.add_argument("--speed", type=int, default=8640)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as state:
        os.makedirs(f"{state}/runs/{RUN}", mode=0o700)
        events = write_journal(f"{state}/runs/{RUN}/journal.jsonl", options.hosts, options.every)
        screen = Screen(state, options.speed)
        begin = time.monotonic()
        screen.take_until(MARK, 120)
        early = memory_kb(screen.pid)
        screen.take_until(GOES_ON, 120)
        screen.seen = b""
        screen.take_until(MARK, 1800)
        late = memory_kb(screen.pid)
        spent = time.monotonic() - begin
        screen.take_until(b"over:", 300)
        os.write(screen.fd, b"q")
        screen.take_until(None, 120)
        status = os.waitstatus_to_exitcode(os.waitpid(screen.pid, 0)[1])
    said = re.search(rb"dashboard: (\d+) frames, (\d+) bytes to the terminal, the largest frame (\d+)",
                     screen.seen)
    if said is None or status != 0:
        sys.exit(f"exit {status}: {screen.seen[-3000:].decode(errors='replace')}")
    frames, size, largest = (int(number) for number in said.groups())
    good = late <= early * ALLOWED + ALLOWED_KB
    whole = ROWS * COLS * CELL_BYTES
    bounded = largest <= whole and frames <= 10 * (spent + 15) and size <= frames * whole
    bounded = bounded and screen.clears <= CLEARS_MAX
    print(f"{events} events of 24 hours of {options.hosts} hosts, played in {spent:.0f} s")
    print(f"  memory at a tenth  {early / 1000:7.1f} MB")
    print(f"  memory at the end  {late / 1000:7.1f} MB{'' if good else '   grows'}")
    print(f"  to the terminal    {size / 1000:7.1f} KB in {frames} frames, the largest {largest} bytes, {screen.clears} times cleared"
          + ("" if bounded else "   too much"))
    return 0 if good and bounded else 1


if __name__ == "__main__":
    sys.exit(main())
