"""One cell: a rollout to one host, a fault in one phase, and the verdict.

A cell counts only where the fault hit between the two events that begin and end the phase. Then
the program's word is held against the host's own: `healthy` means that the running system, the
profile and the boot default are the new one, any other end that they are the old one; `unknown` is
accepted where the table says so and either is true. After the fault has been lifted one command,
`resume` where the run was cut off and else the next `update`, has to end with the new system, healthy,
and nothing left behind.
"""

import json
import os
import shutil
import subprocess
import time

from faults import CONFIRM_S
from hosts import Red, until
from phases import PHASES, release_hook
from rollout import Run, seconds_of
from wire import Listener, Wire

RUN_S = 240
ENDS = {  # what the program says: its letter in the table of faults, its exit code
    "healthy": ("N", {0}), "unchanged": ("N", {0}), "rolled_back": ("O", {3}), "failed": ("O", {3}),
    "unreachable": ("U", {5}), "skipped": ("S", {7, 5}), "unknown": ("Q", {4}),
    "rollback_failed": ("R", {4}),
}
WORDS = {"N": "new", "O": "old", "B": "old, not built", "U": "old, unreachable", "S": "old, skipped",
         "R": "rollback failed"}


class Cell:
    def __init__(self, fault_name, fault, phase_name, slot):
        self.fault_name, self.fault = fault_name, fault
        self.phase_name, self.phase = phase_name, PHASES[phase_name]
        self.host, self.systems, self.folder = slot.host, slot.systems, slot.new_folder(self)
        self.wire = Wire(self.host.address)
        self.flood, self.flood_bytes = "", slot.flood_bytes
        self.await_hit = None  # where the fault itself tells when it hit
        self.lifted = False
        self.anchor = self.run = None
        self.system = None
        self.secret = None  # a file that the host is to have
        self.gate = os.path.join(self.folder, "gate")

    # ---- the run ----

    def add_anchor(self):
        """A host that is asked and doesn't answer yet: until it has, nobody is granted anything."""
        self.anchor = Listener()

    def inventory(self, system):
        address = self.host.address
        host = {
            "address": f"127.0.0.1:{self.wire.port}",
            "host_key": self.host.key(),
            "system": system,
            "health": [
                {"name": "web", "type": "http", "url": f"http://{address}:8080/health",
                 "interval": "500ms", "timeout": "2s", "failures": 10},
                {"name": "gate", "type": "command", "from": "operator", "run": ["test", "-e", self.gate],
                 "interval": "500ms"},
            ],
        }
        if self.secret:
            host["secrets"] = [{"name": "token", "file": self.secret}]
        hosts = {self.host.name: host}
        if self.anchor:
            hosts["anchor"] = {
                "address": f"127.0.0.1:{self.anchor.port}", "host_key": self.host.key(),
                "optional": True, "connect_timeout": "100s", "system": {"path": self.old},
            }
        return {
            "version": 1,
            "name": "faults",
            "defaults": {
                "user": "root", "identity_file": os.path.join(os.environ["FLEET_TESTBED"], "key"),
                "connect_timeout": "10s",
                "nix_options": {"sandbox": "false", "substituters": "", "build-users-group": ""},
                "policy": {
                    "waves": ["100%"], "startup_grace": "0s", "min_healthy_time": "1s",
                    "confirm_timeout": f"{CONFIRM_S}s", "activate_timeout": "30s",
                    "healthy_deadline": "2s" if system == {"path": self.systems["bad"]} else "60s",
                },
            },
            "hosts": hosts,
        }

    def start(self, name, command, system=None):
        path = os.path.join(self.folder, "fleet.json")
        if system is not None:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(self.inventory(system), file, indent=1)
        state = os.path.join(self.folder, "state")
        return Run(["-i", path, "--state-dir", state, *command], self.folder, name)

    # ---- from start to end ----

    def play(self):
        """The verdict in a few words; Red where there is none to be proud of."""
        try:
            self.prepare()
            began, evidence, hit_at = self.hit()
            code = None if self.run.killed else self.run.wait(RUN_S)
            verdict = self.judge(code, began, hit_at)
            self.fault_after()
            after = self.go_on(code)
            return verdict + after, evidence
        finally:
            self.clean()

    def prepare(self):
        truth = self.host.settled(60)
        self.old = truth["current"]
        # A host keeps what it runs and what it has booted; the next version is none of these.
        kept = {self.old, truth["booted"]}
        self.new = self.next = next(path for path in self.systems["good"] if path not in kept)
        if self.phase.version == "bad":
            self.new = self.systems["bad"]
        self.host.inside("rm -f /run/testbed-*; nix-collect-garbage -d; exit 0", 60)
        self.system = {"path": self.new}
        with open(self.gate, "w", encoding="ascii"):
            pass
        if self.fault.before:
            self.fault.before(self)
        self.phase.hold(self)

    def hit(self):
        words = ["update", "--yes", "--json", *self.phase.options]
        self.run = self.start("run", words, self.system)
        if self.phase.advance:
            self.phase.advance(self)
        event = self.run.await_state(self.phase.state, 90)
        if not (self.await_hit and not self.flood):
            self.phase.reached(self)
        self.hit_at = None
        evidence = self.fault.put(self)
        hit_at = self.hit_at or time.time()
        self.phase.release(self)
        if self.await_hit:
            hit_at = self.until("trace of the fault", self.await_hit, 60)
        if self.fault.lifted != "after":
            time.sleep(self.fault.lifted)
            self.fault_after()
        return seconds_of(event), evidence, hit_at

    def until(self, what, condition, seconds):
        """As hosts.until, but over when the run is."""

        def look():
            value = condition()
            if not value and self.run.is_over():
                raise Red(f"no {what} before the run had ended: {self.run.tale()}")
            return value

        return until(what, look, seconds)

    def judge(self, code, began, hit_at):
        run = self.run
        end = run.end_of(self.phase.state)
        if hit_at < began:
            raise Red(f"the fault hit {began - hit_at:.3f} s before the phase began")
        if not run.killed and end is not None and hit_at > end + 0.001:
            raise Red(f"the fault hit {hit_at - end:.3f} s after the phase had ended: {run.tale()}")
        if self.flood:
            self.judge_flood()
        allowed = self.fault.may_end(self.phase_name, self.phase.kind)
        if run.killed:
            return "operator dead"
        if code == 1:
            letter, word = "X", "stopped"
        else:
            letter, codes = ENDS.get(run.state(), ("?", set()))
            if run.state() == "failed" and code == 9:
                letter, codes = "B", {9}
            if code not in codes:
                raise Red(f"exit {code} with the host {run.state()}: {run.tale()}")
            word = WORDS.get(letter, "unknown")
        if letter not in allowed:
            raise Red(f"ended {run.state()}, exit {code}, where {allowed} was due: {run.tale()}")
        return self.hold_against_truth(letter, word)

    def hold_against_truth(self, letter, word):
        """The program's word and the host's own are the same, or the cell is red."""
        self.fault_after()
        truth = self.host.settled(CONFIRM_S + 100)
        systems = {truth["current"], truth["profile"], truth["boot"]}
        named = {"N": {self.new}}.get(letter, {self.old})
        if letter in "QXR":
            if systems not in ({self.old}, {self.new}) and self.phase.kind != "commit":
                raise Red(f"it is neither old nor new: {truth}")
            word += {frozenset({self.old}): ", is old", frozenset({self.new}): ", is new"}.get(
                frozenset(systems), ", is between")
        elif systems != named:
            raise Red(f"said to be {self.run.state()}, yet the host is {truth}: {self.run.tale()}")
        if letter == "N" and (truth["lock"] or truth["record"] or truth["roots"]):
            raise Red(f"it is healthy, and this is left: {truth}")
        return word + (", reconnected" if self.run.reconnects() and letter in "NO" else "")

    def judge_flood(self):
        """What the operator keeps of an endless output is bounded, in memory and on disk."""
        kept = sum(
            os.path.getsize(os.path.join(folder, name))
            for folder, _, names in os.walk(os.path.join(self.folder, "state")) for name in names
        )
        if kept > 8e6 or self.run.peak_kb > 150000:
            raise Red(f"of the flood {kept} bytes are kept, the program took {self.run.peak_kb} kB")

    def fault_after(self):
        if not self.lifted:
            self.lifted = True
            self.fault.lift(self)

    # ---- afterwards ----

    def go_on(self, code):
        """The one command that goes on from there, to the new system."""
        release_hook(self)
        self.host.inside("rm -f /run/testbed-hook", check=False)
        self.phase.release(self)
        word = ""
        if self.run.killed or code == 1:
            again = self.start("resume", ["resume", "--no-input", "--json"])
            code = again.wait(RUN_S)
            if self.run.killed:
                self.host.settled(60)
            letter = ENDS.get(again.state(), ("?", set()))[0]
            due = "O" if self.phase.version == "bad" else "N"
            nothing = "nothing to do" in again.text()
            if letter != due and not nothing:
                raise Red(f"resume: exit {code}: {again.tale()} {again.text()[-300:]}")
            word = f"; resume: {WORDS[letter] if not nothing else 'nothing to do'}"
        truth = self.host.truth()
        left = truth["lock"] or truth["roots"]
        if left and truth["current"] == self.next:
            # What a lost host keeps goes with the next change.
            self.next = next(path for path in self.systems["good"] if path != self.next)
        if left or truth["current"] != self.next or truth["profile"] != self.next:
            # A run that lost its host could not let go of it: its lease is waited for.
            words = ["--lock-timeout", "150s"] if truth["lock"] else []
            again = self.start("update", ["update", "--yes", "--json", *words], {"path": self.next})
            code = again.wait(RUN_S)
            if code != 0:
                raise Red(f"the next update: exit {code}: {again.tale()} {again.text()[-300:]}")
            word += "; update: new"
        truth = self.host.settled(30)
        if {truth["current"], truth["profile"], truth["boot"]} != {self.next}:
            raise Red(f"at last it should be all new, and is {truth}")
        if truth["lock"] or truth["record"] or truth["roots"]:
            raise Red(f"at last this is left: {truth}")
        if self.secret and not self.has_secret():
            raise Red("at last its secret is not what it should be, or something is left beside it")
        return word

    def has_secret(self):
        folder = self.host.path("/run/fleet/secrets")
        with open(self.secret, "rb") as here, open(os.path.join(folder, "token"), "rb") as there:
            return here.read() == there.read() and os.listdir(folder) == ["token"]

    def clean(self):
        if self.run and self.run.process.poll() is None:
            self.run.kill()
        if self.anchor:
            self.anchor.close()
        self.wire.close()
        if os.path.ismount(os.path.join(self.folder, "state")):
            kept = os.path.join(self.folder, "state-kept")
            shutil.copytree(os.path.join(self.folder, "state"), kept, dirs_exist_ok=True)
            subprocess.run(["umount", os.path.join(self.folder, "state")], check=True)
