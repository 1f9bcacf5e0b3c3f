"""A fleet of played hosts and the real program: what tests/scale and tests/bench/scale have in common.

As a program: played_fleet.py DIR [--hosts N] [HOST OPTION...] -- FLEET ARGUMENT...
prints one JSON object: exit, states (count by end state), ends (end state by host), reasons (the
reason code of each host that did not end well), wall_s, cpu_s, rss_mb, descriptors, handshakes,
most_handshakes, turns: by loop the longest time away and the most CPU in one turn, both ms; journal:
grants, syncs, the time in syncs and the longest one. Host options are those of scale_hosts (its
source's head).

fleet runs in a mount namespace of its own whose /nix holds the played system's path and nothing
else, with the played nix-store first in PATH, and with no more than 1,200 descriptors.
Needs root, or user namespaces.
"""
import collections
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
FLEET = os.environ.get("FLEET", os.path.join(ROOT, "build/fleet"))
SYSTEM = "/nix/store/11111111111111111111111111111111-system-new"
DESCRIPTORS = 1200
GOOD_ENDS = ("healthy", "unchanged")


def scale_hosts():
    """The server's program: beside the tests' others, or in the build that $FLEET comes from."""
    build = os.path.dirname(os.path.realpath(FLEET))
    places = [os.environ.get("FLEET_TEST_PROGRAMS", ""), os.path.join(build, "tests")]
    for place in places:
        path = os.path.join(place, "scale_hosts")
        if place and os.access(path, os.X_OK):
            return path
    sys.exit("scale_hosts is not built: it needs libssh-dev; then build the target scale_hosts")


class Fleet:
    """Hosts that are up from __enter__ to __exit__."""

    def __init__(self, folder, options):
        self.folder = folder
        self.options = options
        self.handshakes = self.most_handshakes = 0
        self.state = os.path.join(folder, "state")

    def __enter__(self):
        os.makedirs(self.folder, exist_ok=True)
        self.process = subprocess.Popen(
            [scale_hosts(), "--dir", self.folder, *self.options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit("scale_hosts did not start")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        words = self.process.stdout.read().split()
        self.process.wait()
        if len(words) == 4:
            self.handshakes, self.most_handshakes = int(words[1]), int(words[3])


def option_of(options, name, default):
    return options[options.index(name) + 1] if name in options else default


def command(fleet, arguments):
    # Debian's package leaves it to the first nix command to make /nix.
    script = ("mkdir -p /nix && mount -t tmpfs none /nix && "
              f"mkdir -p {SYSTEM} && ulimit -n {DESCRIPTORS} && "
              'exec "$@"')
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-m"]
    return [*unshare, "sh", "-c", script, "sh", FLEET, "-i",
            os.path.join(fleet.folder, "fleet.json"), *arguments]


def environment(fleet):
    return dict(os.environ, PATH=os.path.join(fleet.folder, "bin") + ":" + os.environ["PATH"],
                XDG_STATE_HOME=fleet.state, CI="1", NO_COLOR="1",
                FLEET_TRACE_LOOP="1",
                SCALE_PACKAGES=option_of(fleet.options, "--packages", "0"),
                SCALE_PACKAGE_BYTES=option_of(fleet.options, "--package-bytes", "0"))


def watch_descriptors(pid, seen):
    """Most descriptors at once, as far as a look every tenth of a second sees them."""
    try:
        while True:
            seen[0] = max(seen[0], len(os.listdir(f"/proc/{pid}/fd")))
            time.sleep(0.1)
    except OSError:
        pass


def read_events(path):
    ends, reasons, turns = {}, {}, {}
    journal = {"grants": 0, "syncs": 0, "sync_ms": 0.0, "longest_ms": 0.0}
    with open(path) as file:
        for line in file:
            event = json.loads(line)
            journal["grants"] += event["type"] == "grant"
            if event["type"] == "host_state":
                ends[event["host"]] = event["to"]
                reasons[event["host"]] = event.get("reason")
            elif event["type"] == "log" and event.get("stream") == "loop":
                found = re.match(r"(.+): longest turn ([0-9.]+) ms, busiest ([0-9.]+) ms",
                                 event["line"])
                if found:
                    turns[found[1]] = [float(found[2]), float(found[3])]
                found = re.match(r"journal: (\d+) syncs in ([0-9.]+) ms, the longest ([0-9.]+) ms",
                                 event["line"])
                if found:
                    journal.update(syncs=int(found[1]), sync_ms=float(found[2]),
                                   longest_ms=float(found[3]))
    return ends, reasons, turns, journal


def run(fleet, arguments, timeout_s=300):
    """One run of the program against hosts that are up; the dictionary that main prints."""
    events = os.path.join(fleet.folder, "events.jsonl")
    seen = [0]
    begin = time.monotonic()
    with open(events, "w") as out, open(os.path.join(fleet.folder, "words"), "w") as err:
        process = subprocess.Popen(command(fleet, [*arguments, "--json"]), stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=err, env=environment(fleet))
        threading.Thread(target=watch_descriptors, args=(process.pid, seen), daemon=True).start()
        ender = threading.Timer(timeout_s, process.kill)
        ender.start()
        _, status, usage = os.wait4(process.pid, 0)
        ender.cancel()
    ends, reasons, turns, journal = read_events(events)
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "states": dict(collections.Counter(ends.values())),
        "ends": ends,
        "reasons": {h: r for h, r in reasons.items() if ends[h] not in GOOD_ENDS},
        "wall_s": round(time.monotonic() - begin, 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "rss_mb": round(usage.ru_maxrss / 1024, 1),
        "descriptors": seen[0],
        "turns": turns,
        "journal": journal,
    }


def main():
    cut = sys.argv.index("--")
    fleet = Fleet(sys.argv[1], sys.argv[2:cut])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with fleet:
        result = run(fleet, sys.argv[cut + 1:])
    if not result["ends"]:
        with open(os.path.join(fleet.folder, "words")) as words:
            sys.stderr.write(words.read())
    result.update(handshakes=fleet.handshakes, most_handshakes=fleet.most_handshakes)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
