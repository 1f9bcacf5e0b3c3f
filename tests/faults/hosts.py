"""The testbed's hosts as the matrix sees them: entered by nsenter(1), never through their sshd.

What is asked here is the truth that the program's word is held against, so nothing of the program
takes part. Works on a host whose sshd is gone, whose /run is full or whose network is silent; a
frozen host answers what its files and kernel know, but not what its systemd does.
"""

import glob
import os
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTBED = os.path.join(HERE, "..", "testbed", "testbed")

TRUTH = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
say current "$(readlink -f /run/current-system)"
say booted "$(readlink -f /run/booted-system)"
say profile "$(readlink -f /nix/var/nix/profiles/system)"
say boot "$(cat /boot/loader/default)"
say boot_id "$(cat /proc/sys/kernel/random/boot_id)"
say guard "$(timeout 10 systemctl is-active fleet-guard.service)"
say record "$(ls -d /var/lib/fleet/guard 2>/dev/null)"
say lock "$(ls /run/fleet/lock 2>/dev/null)"
say roots "$(ls /nix/var/nix/gcroots/fleet 2>/dev/null | xargs)"
"""


class Red(Exception):
    """What makes a cell red, in words."""


def until(what, condition, seconds):
    """Waits for a condition; its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Red(f"no {what} within {seconds} s")
        time.sleep(0.05)


def testbed(*words, seconds=120):
    done = subprocess.run(
        [TESTBED, *map(str, words)], capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode != 0:
        raise Red(f"testbed {' '.join(map(str, words))}: {done.stderr.strip()[-500:]}")
    return done.stdout


def environment():
    """What `testbed env` says, by name."""
    script = 'eval "$("$0" env)"; for name in $(compgen -v TESTBED_) NIX_CONFIG; do printf "%s=%s\\0" "$name" "${!name}"; done'
    said = subprocess.run(["bash", "-c", script, TESTBED], capture_output=True, text=True, check=True)
    return dict(item.split("=", 1) for item in said.stdout.split("\0") if item)


class Host:
    def __init__(self, number, address):
        self.number = number
        self.name = f"h{number}"
        self.address = address
        self.folder = os.path.join(os.environ["FLEET_TESTBED"], "hosts", str(number))
        with open(os.path.join(os.environ["FLEET_TESTBED"], "cgroup"), encoding="ascii") as file:
            self.cgroup = os.path.join(file.read().strip(), self.name)

    def key(self):
        path = os.path.join(self.folder, "upper/etc/ssh/ssh_host_ed25519_key.pub")
        with open(path, encoding="ascii") as file:
            return " ".join(file.read().split()[:2])

    def first(self):
        """The pid of its systemd, "" while it is down."""
        try:
            with open(os.path.join(self.cgroup, "payload/init.scope/cgroup.procs"), encoding="ascii") as file:
                return file.readline().strip()
        except OSError:
            return ""

    def inside(self, script, seconds=30, check=True):
        """Runs a script in the host; its output."""
        first = until(f"{self.name} that is up", self.first, 40)
        try:
            done = subprocess.run(
                ["nsenter", "-t", first, "-a", "/bin/sh", "-c", script],
                capture_output=True, text=True, timeout=seconds, check=False,
                env={"PATH": "/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        except subprocess.TimeoutExpired as error:
            raise Red(f"{self.name} did not answer within {seconds} s: {script[:80]}") from error
        if check and done.returncode != 0:
            raise Red(f"{self.name}: {script[:80]}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def truth(self):
        return dict(line.split("=", 1) for line in self.inside(TRUTH).splitlines())

    def boot_id(self):
        return self.inside("cat /proc/sys/kernel/random/boot_id").strip()

    def settled(self, seconds):
        """The truth once no guard is at work any more."""

        def look():
            try:
                truth = self.truth()
            except Red:
                return None
            return truth if truth["guard"] in ("inactive", "failed", "unknown") else None

        return until(f"end of {self.name}'s guard", look, seconds)

    def pids(self, *names):
        """Its processes of these names."""
        found = []
        for procs in glob.glob(f"{self.cgroup}/**/cgroup.procs", recursive=True):
            with open(procs, encoding="ascii") as file:
                pids = file.read().split()
            for pid in pids:
                try:
                    with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                        if file.read().strip() in names:
                            found.append(int(pid))
                except OSError:
                    pass
        return found

    def kill(self, *names):
        pids = self.pids(*names)
        for pid in pids:
            try:
                os.kill(pid, 9)
            except OSError:
                pass
        return len(pids)

    def freeze(self, frozen):
        testbed("freeze" if frozen else "thaw", self.number)

    def power_off(self):
        testbed("down", self.number)

    def power_on(self):
        testbed("start", self.number)

    def is_up(self):
        try:
            with open(os.path.join(self.cgroup, "cgroup.events"), encoding="ascii") as file:
                return "populated 1" in file.read()
        except OSError:
            return False
