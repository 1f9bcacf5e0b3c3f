"""The phases of a host's way, and how each is made to last until a fault has been put into it.

No phase lasts by a time that somebody guessed: something real is held (bytes at the proxy, the
build command, the activation script, a probe) and let go of once the fault is there. `hold` acts
before the run starts, `advance` when the run has come far enough, `reached` says when the host is
in the phase for sure.
"""

import contextlib
import os

HOOK = r"""#!/bin/sh
[ "$1 $2" = "@when@" ] || exit 0
@flood@
: >/run/testbed-held
while [ -e /run/testbed-hold ]; do sleep 0.05; done
"""
SECRET_BYTES = 900000
UPLOAD_BYTES = 200000  # of the secret, as base64
COPY_BYTES = 300000  # more than everything before the copy, less than the copy


class Phase:
    def __init__(self, state, kind, hold, reached, release, advance=None, version="good", options=()):
        self.state = state  # as the events call it
        self.kind = kind  # before, secrets, window, commit, after, back: what a fault may lead to
        self.hold, self.advance = hold, advance
        self.reached, self.release = reached, release
        self.version = version
        self.options = options


def set_hook(cell, when, held):
    """The host's own script (see testbed/README.md) waits where `when` says, while `held`."""
    text = HOOK.replace("@when@", when).replace("@flood@", cell.flood)
    cell.host.inside(
        f"cat >/run/testbed-hook <<'EOF'\n{text}EOF\nchmod 755 /run/testbed-hook\n"
        + ("touch /run/testbed-hold" if held else "")
    )


def is_held_there(cell):
    def look():
        return os.path.exists(cell.host.path("/run/testbed-held"))

    cell.until(f"sign of {cell.host.name} that it waits", look, 60)


def release_hook(cell):
    # Its systemd may be gone by now: then the hold is, too.
    with contextlib.suppress(OSError):
        os.unlink(cell.host.path("/run/testbed-hold"))


# ---- by phase ----


def hold_banner(cell):
    cell.wire.set(hold_from=1)


def await_waiting(cell):
    cell.until("connection held at the proxy", lambda: cell.wire.get("waiting"), 60)


def release_wire(cell):
    cell.wire.do(lambda proxy: proxy.release())


def hold_build(cell):
    path = os.path.join(cell.folder, "build")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nwhile [ ! -e {cell.folder}/go ]; do sleep 0.05; done\necho {cell.new}\n")
    os.chmod(path, 0o755)
    cell.system = {"command": [path]}


def release_build(cell):
    with open(os.path.join(cell.folder, "go"), "w", encoding="ascii"):
        pass


def hold_copy(cell):
    cell.wire.set(hold_up_at=COPY_BYTES)


def hold_grant(cell):
    cell.add_anchor()


def release_grant(cell):
    cell.anchor.close()


def hold_secret(cell):
    """A host that waits for its grant first, so that the upload can be met."""
    cell.add_anchor()
    cell.secret = os.path.join(cell.folder, "secret")
    with open(cell.secret, "wb") as file:
        file.write(os.urandom(SECRET_BYTES))


def hold_upload(cell):
    cell.run.await_state("staged", 90)
    cell.wire.do(lambda proxy: proxy.hold_up_after(UPLOAD_BYTES))
    cell.anchor.close()


def hold_activation(cell):
    set_hook(cell, f"activate {cell.new}", True)


def hold_confirmation(cell):
    cell.wire.set(hold_from=2)


def hold_probe(cell):
    cell.run.await_state("staging", 60)
    os.unlink(cell.gate)  # the look before the change has seen it


def release_probe(cell):
    with open(cell.gate, "w", encoding="ascii"):
        pass


def hold_commit(cell):
    set_hook(cell, f"bootloader {cell.new}", True)


def hold_commit_late(cell):
    set_hook(cell, f"bootloader-done {cell.new}", True)


def hold_way_back(cell):
    set_hook(cell, f"activate {cell.old}", True)


def hold_boot(cell):
    cell.wire.set(hold_from=3)


def await_boot(cell):
    leader = cell.host.leader()
    cell.until(f"sign of {cell.host.name}'s going down", lambda: cell.host.leader() != leader, 60)
    cell.until(f"sshd of {cell.host.name}'s", lambda: cell.host.find("sshd"), 60)


def nothing(cell):
    pass


PHASES = {
    "connecting": Phase("connecting", "before", hold_banner, await_waiting, release_wire),
    "building": Phase("building", "before", hold_build, nothing, release_build),
    "staging": Phase("staging", "before", hold_copy, await_waiting, release_wire),
    "staged": Phase("staged", "before", hold_grant, nothing, release_grant),
    "uploading": Phase(
        "staged", "secrets", hold_secret, await_waiting, release_wire, advance=hold_upload
    ),
    "activating": Phase("activating", "window", hold_activation, is_held_there, release_hook),
    "confirming": Phase("confirming", "window", hold_confirmation, await_waiting, release_wire),
    "probing": Phase("probing", "window", nothing, nothing, release_probe, advance=hold_probe),
    "committing": Phase("committing", "commit", hold_commit, is_held_there, release_hook),
    "committing_late": Phase(  # the boot default is the new one by now
        "committing", "commit", hold_commit_late, is_held_there, release_hook
    ),
    "rebooting": Phase(
        "rebooting", "after", hold_boot, await_boot, release_wire, options=("--reboot", "always")
    ),
    "rolling_back": Phase(
        "rolling_back", "back", hold_way_back, is_held_there, release_hook, version="bad"
    ),
}
