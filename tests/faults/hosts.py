"""The testbed's hosts as the matrix sees them (see also tests/support/testbed_hosts.py): what befalls
them, and the truth that the program's word is held against, asked from inside by nsenter(1).

Nothing of the program takes part, nor does the host's sshd. A frozen host answers what its files and
kernel know, but not what its systemd does.
"""

import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
import testbed_hosts  # noqa: E402

TRUTH = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
say current "$(readlink -f /run/current-system)"
say booted "$(readlink -f /run/booted-system)"
say profile "$(readlink -f /nix/var/nix/profiles/system)"
say boot "$(cat /boot/loader/default)"
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


class Host(testbed_hosts.Host):
    def key(self):
        path = os.path.join(self.folder, "upper/etc/ssh/ssh_host_ed25519_key.pub")
        return " ".join(testbed_hosts.read(path).split()[:2])

    def inside(self, script, seconds=30, check=True):
        """Runs a script in the host; its output."""
        leader = until(f"{self.name} that is up", self.leader, 40)
        try:
            done = subprocess.run(
                ["nsenter", "-t", str(leader), "-a", "/bin/sh", "-c", script],
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

    def settled(self, seconds):
        """The truth once no guard is at work any more."""

        def look():
            try:
                truth = self.truth()
            except Red:
                return None
            return truth if truth["guard"] in ("inactive", "failed", "unknown") else None

        return until(f"end of {self.name}'s guard", look, seconds)

    def freeze(self, frozen=True):
        super().freeze(frozen)
        events = os.path.join(self.group, "cgroup.events")
        until(f"freezing of {self.name}", lambda: f"frozen {frozen:d}" in testbed_hosts.read(events), 10)
