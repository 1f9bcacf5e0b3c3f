"""The faults: how each is made, what shows that it hit, and how it is lifted.

`put` returns the evidence in words, or raises Red where nothing was hit. `ends` says what a cell may
end in, by the phase or by its kind; a phase that neither names means nothing, for the reason that
`pointless` gives.

  N  the new system, healthy, exit 0          O  the old one: rolled back or failed, exit 3
  U  the old one, never reached, exit 5       S  the old one, skipped (lock lost), exit 7
  Q  unknown, and said to be, exit 4          X  the program could not go on, exit 1
  B  the old one, the build failed, exit 9   R  rolled back in doubt, and said to be, exit 4
  K  the operator died
"""

import base64
import os
import subprocess
import time

from hosts import HERE, Red, until

RTT_S = 0.3
LOSS = 0.1
FREEZE_S = 3
CONFIRM_S = 12  # confirm_timeout of every cell
FULL_S = 15  # longer than a few tries to go back
PIECES_MAX = 40  # of a handshake
LONG_FREEZE_S = CONFIRM_S + 6
CUT_BYTE = 2000
NIX_ROOM = 512 << 10  # without any its database can't even be read
GARBAGE = bytes(range(256)) * 16
DAY_S = 86400


class Fault:
    def __init__(self, title, put, ends, lift=None, lifted="after", before=None, pointless=None,
                 flavour=""):
        self.title = title
        self.put = put
        self.ends = ends
        self.lift = lift or (lambda cell: None)
        self.lifted = lifted  # "after" the run, or a number of seconds after the phase's release
        self.before = before  # prepared before the run; then `put` waits for its traces
        self.pointless = pointless or {}
        self.flavour = flavour  # of the host
        self.loop = bool(flavour) or before in (prepare_small_disk, prepare_bare_disk)

    def may_end(self, phase, kind):
        """The letters of a cell, "" for a combination that means nothing."""
        if phase in self.pointless:
            return ""
        return self.ends.get(phase, self.ends.get(kind, self.ends.get("any", "")))


# ---- the network ----


def put_delay(cell):
    cell.wire.set(delay=RTT_S / 2)
    return f"{RTT_S * 1000:.0f} ms round trip from here on"


def put_loss(cell):
    cell.wire.set(loss=LOSS)
    return f"{LOSS:.0%} of the pieces 0.2 to 1.2 s late from here on"


def put_stall(cell):
    count = act(cell, lambda proxy: proxy.stall_all())
    return hit(count, "connections stand still")


def put_reset(cell):
    carried = cell.wire.do(lambda proxy: sum(link.carried for link in proxy.links))
    count = act(cell, lambda proxy: proxy.reset_all())
    return hit(count, f"connections reset after {carried} bytes")


def put_cut(cell):
    """In the middle of the key exchange of a connection that is held before its first byte."""
    cell.until("new connection at the proxy", lambda: cell.wire.get("waiting"), 30)
    cell.wire.do(lambda proxy: proxy.cut_new(CUT_BYTE))
    cell.await_hit = lambda: cell.wire.get("cut_at")
    return f"a connection is reset at byte {CUT_BYTE}"


def put_silence(cell):
    def silence(proxy):
        proxy.silent = True
        return len(proxy.links)

    act(cell, silence)
    return "no byte passes any more"


def lift_wire(cell):
    cell.wire.set(delay=0, loss=0, noise=None, silent=False)
    cell.wire.do(lambda proxy: proxy.release())


def put_garbage(cell):
    return hit(act(cell, lambda proxy: proxy.spoil(GARBAGE)), "connections got garbage")


def act(cell, function):
    """In the proxy's thread; when it was is noted there, as the answer may come at once."""

    def now(proxy):
        cell.hit_at = time.time()
        return function(proxy)

    return cell.wire.do(now)


def hit(count, what):
    if not count:
        raise Red(f"0 {what}: nothing was hit")
    return f"{count} {what}"


# ---- the host ----


def put_sshd_kill(cell):
    # One that is only just starting has no name yet.
    count = until(f"sshd on {cell.host.name}", cell.host.kill_sshd, 20)
    cell.hit_at = time.time()
    return hit(count, "processes of sshd's killed")


def put_auth_kill(cell):
    """Of a connection that is held before its first byte, behind the user's name."""
    cell.until("new connection at the proxy", lambda: cell.wire.get("waiting"), 30)
    for _ in range(PIECES_MAX):
        if cell.host.find("sshd: root [net]"):
            return put_sshd_kill(cell) + " in mid-authentication"
        cell.wire.do(lambda proxy: proxy.step())
        time.sleep(0.5)
    raise Red("no authentication was seen")


def freeze(seconds):
    def put(cell):
        cell.host.freeze(True)
        cell.hit_at = time.time()
        time.sleep(seconds)
        cell.host.freeze(False)
        return f"all of its processes stood still for {seconds} s"

    return put


def put_reboot(cell):
    leader = cell.host.leader()
    if leader is None:
        return put_power_cut(cell)  # it goes down or comes up already
    cell.host.inside("systemctl --no-block reboot")
    cell.hit_at = time.time()
    until(f"reboot of {cell.host.name}", lambda: cell.host.leader() != leader, 60)
    return "it went down for a reboot"


def put_power_cut(cell):
    cell.host.power_off()
    if cell.host.is_up():
        raise Red("it is still up after the power cut")
    cell.host.power_on()
    return "every process gone in one step, then on again"


def put_full_run(cell):
    return fill(cell, "/run", 0)


def put_full_nix(cell):
    return fill(cell, "/nix", NIX_ROOM)


def fill(cell, folder, leave):
    # One that is only just starting mounts it first.
    until(f"full {folder}", lambda: cell.host.fill(folder, leave), 20)
    room = os.statvfs(cell.host.path(folder))
    left = room.f_bavail * room.f_frsize
    if left > leave + 8192:
        raise Red(f"{folder} has {left} bytes left: it is not full")
    return f"{folder} has {left} bytes left"


def put_clock(cell):
    """Nothing but a library in every process started from here on can move one host's clock here."""
    with open(os.path.join(os.environ["FLEET_TESTBED"], "clock_off.so"), "rb") as file:
        library = base64.b64encode(file.read()).decode()
    before = time.time()
    cell.host.inside(
        f"echo {library} | base64 -d >/usr/lib/clock_off.so; echo /usr/lib/clock_off.so >/etc/ld.so.preload"
    )
    ahead = int(cell.host.inside("date +%s")) - before
    if not DAY_S - 60 < ahead < DAY_S + 60:
        raise Red(f"its clock is {ahead} s ahead, not a day")
    return f"its clock is {ahead:.0f} s ahead"


def lift_clock(cell):
    cell.host.inside("rm -f /etc/ld.so.preload")


def build_clock():
    library = os.path.join(os.environ["FLEET_TESTBED"], "clock_off.so")
    source = os.path.join(HERE, "clock_off.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)


def put_nix_kill(cell):
    return hit(cell.host.kill_nix(), "processes of Nix's killed")


# ---- what a host says ----

SHELL = "/usr/local/bin/garbage-shell"
SPEAK = r"""#!/bin/sh
date +%s.%N >>/var/log/garbage
head -c 20000 /dev/urandom
printf '\nlock ok\ncurrent /nix/store/../../etc\nfleet-0123456789 0\n\033[2J'
exit 0
"""


def last_trace(cell):
    said = cell.host.inside("head -n 1 /var/log/garbage 2>/dev/null", check=False).strip()
    return float(said) if said else None


def put_garbage_shell(cell):
    """Root's login shell talks garbage; a new session is what meets it."""
    cell.host.inside(
        f"rm -f /var/log/garbage; cat >{SHELL} <<'EOF'\n{SPEAK}EOF\nchmod 755 {SHELL}\n"
        f"sed -i -E 's|^(root:.*):[^:]*$|\\1:{SHELL}|' /etc/passwd"
    )
    cell.wire.do(lambda proxy: proxy.reset_all())
    cell.await_hit = lambda: last_trace(cell)
    return "root's shell talks garbage"


def lift_garbage_shell(cell):
    cell.host.inside("sed -i -E 's|^(root:.*):[^:]*$|\\1:/bin/bash|' /etc/passwd")


def prepare_garbage_serve(cell):
    cell.host.inside(
        f"""rm -f /usr/bin/nix-store /var/log/garbage; cat >/usr/bin/nix-store <<'EOF'
#!/bin/sh
case "$*" in
*--serve*) ;;
*) exec -a nix-store /usr/bin/nix "$@" ;;
esac
{SPEAK}
EOF
sed -i '1s/sh/bash/' /usr/bin/nix-store; chmod 755 /usr/bin/nix-store"""
    )
    cell.await_hit = lambda: last_trace(cell)


def lift_garbage_serve(cell):
    cell.host.inside("ln -sf nix /usr/bin/nix-store")


def prepare_flood(cell):
    cell.flood = (
        f"yes 'this activation never stops talking' | head -c {cell.flood_bytes}\n"
        "date +%s.%N >>/var/log/garbage"
    )
    cell.host.inside("rm -f /var/log/garbage")
    cell.await_hit = lambda: last_trace(cell)


def await_traces(cell):
    return "the host's own log of it"


# ---- the operator ----


def prepare_small_disk(cell, kind="ext4"):
    """A small file system of the operator's state folder; ext2 can't take room ahead."""
    folder = os.path.join(cell.folder, "state")
    os.makedirs(folder, exist_ok=True)
    # Small blocks: what is left of a file's last one is soon written full.
    image = os.path.join(cell.folder, "disk")
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    words = ["-q", "-t", kind, "-O", "^has_journal", "-m", "0", "-b", "1024"]
    subprocess.run(["mke2fs", *words, image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)


def prepare_bare_disk(cell):
    prepare_small_disk(cell, "ext2")


def put_full_disk(cell):
    folder = os.path.join(cell.folder, "state")
    try:
        with open(os.path.join(folder, "full"), "wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 1024)
    except OSError:
        pass
    left = os.statvfs(folder).f_bavail
    if left:
        raise Red(f"the state folder has {left} blocks left: it is not full")
    return "the state folder is full"


def lift_full_disk(cell):
    os.unlink(os.path.join(cell.folder, "state", "full"))


def put_operator_kill(cell):
    cell.run.kill()
    return "killed with -9"


ALL_NEW = {"before": "N", "secrets": "N", "window": "N", "commit": "N", "after": "N", "back": "O"}
NO_COPY = dict.fromkeys(
    ["connecting", "building", "staged", "uploading", "activating", "confirming", "probing",
     "committing", "committing_late", "rebooting", "rolling_back"],
    "nothing is imported then",
)
ONLY_ACTIVATION = dict.fromkeys(
    ["connecting", "building", "staging", "staged", "uploading", "confirming", "probing",
     "committing_late", "rebooting"],
    "no script of the system's runs then",
)

FAULTS = {
    "delay": Fault("300 ms round trip", put_delay, ALL_NEW, lift_wire),
    "loss": Fault("one piece in ten late", put_loss, ALL_NEW, lift_wire),
    "stall": Fault(
        "bytes stop, the connection stays", put_stall, {**ALL_NEW, "connecting": "NU"}, lift_wire
    ),
    "reset": Fault("connection reset", put_reset, ALL_NEW, lift_wire),
    "reset-handshake": Fault(
        f"connection reset at byte {CUT_BYTE}", put_cut,
        {"connecting": "N", "confirming": "N", "rebooting": "N"},
        pointless=dict.fromkeys(
            ["building", "staging", "staged", "uploading", "activating", "probing", "committing", "committing_late",
             "rolling_back"],
            "no connection begins then",
        ),
    ),
    "silence": Fault(
        "never answers again", put_silence,
        {"connecting": "U", "before": "O", "staged": "OQ", "secrets": "O", "window": "Q", "commit": "Q", "after": "Q",
         "back": "Q"},
        lift_wire,
    ),
    "sshd-killed": Fault(
        "sshd and its sessions killed", put_sshd_kill, {**ALL_NEW, "connecting": "NU"}
    ),
    "sshd-killed-auth": Fault(
        "sshd killed in mid-authentication", put_auth_kill,
        {"connecting": "N", "confirming": "N", "rebooting": "N"},
    ),
    "frozen": Fault(f"frozen for {FREEZE_S} s", freeze(FREEZE_S), ALL_NEW),
    "frozen-long": Fault(
        "frozen for longer than confirm_timeout", freeze(LONG_FREEZE_S),
        {**ALL_NEW, "connecting": "NU", "confirming": "O", "probing": "O"},
    ),
    "rebooted": Fault(
        "rebooted", put_reboot,
        {"before": "NO", "staging": "OS", "staged": "OS", "secrets": "OS", "window": "O",
         "commit": "NO", "after": "N", "back": "O"},
    ),
    "power-cut": Fault(
        "power cut, then on again", put_power_cut,
        {"before": "NO", "staging": "OS", "staged": "OS", "secrets": "OS", "window": "O",
         "commit": "NO", "after": "N", "back": "O"},
    ),
    "nix-full": Fault(
        f"/nix full but for {NIX_ROOM >> 10} kB", put_full_nix,
        {"before": "O", "staged": "NO", "secrets": "NO", "window": "NO", "commit": "NO", "after": "N",
         "back": "O"},
        lambda cell: cell.host.unfill("/nix"), flavour="small-nix",
    ),
    "run-full": Fault(
        "/run full", put_full_run,
        # systemd reloads no unit files then, so a service may still be the new system's.
        {"before": "O", "secrets": "O", "activating": "O", "window": "N", "commit": "N", "after": "N",
         "back": "R"},
        lambda cell: cell.host.unfill("/run"),
    ),
    "run-full-while": Fault(
        f"/run full for {FULL_S} s", put_full_run,
        {"before": "NO", "secrets": "NO", "activating": "O", "window": "N", "commit": "N",
         "after": "N", "back": "O"},
        lambda cell: cell.host.unfill("/run"), lifted=FULL_S,
    ),
    "disk-full": Fault(
        "operator's disk full, room was taken ahead", put_full_disk,
        {**ALL_NEW, "connecting": "NB", "building": "NB"}, lift_full_disk,
        before=prepare_small_disk,
    ),
    "disk-full-bare": Fault(
        "operator's disk full, no room ahead", put_full_disk, {"any": "X"}, lift_full_disk,
        before=prepare_bare_disk,
    ),
    "clock": Fault("clock a day ahead", put_clock, ALL_NEW, lift_clock),
    "nix-killed": Fault("Nix killed", put_nix_kill, {"staging": "N"}, pointless=NO_COPY),
    "flood": Fault(
        "endless output", await_traces, {"activating": "N", "committing": "N", "rolling_back": "O"},
        before=prepare_flood, pointless=ONLY_ACTIVATION,
    ),
    "garbage": Fault(
        "garbage on the wire", put_garbage, {**ALL_NEW, "connecting": "NU"}, lift_wire, lifted=2
    ),
    "garbage-shell": Fault(
        "garbage from the shell", put_garbage_shell,
        {"connecting": "OU", "before": "NO", "secrets": "NO", "window": "N", "commit": "N",
         "after": "N", "back": "O"},
        lift_garbage_shell, lifted=3,
        pointless={"staged": "no session is opened while it waits"},
    ),
    "garbage-serve": Fault(
        "garbage from Nix", await_traces, {"staging": "O"}, lift_garbage_serve,
        before=prepare_garbage_serve, pointless=NO_COPY,
    ),
    "operator-killed": Fault("operator killed with -9", put_operator_kill, {"any": "K"}),
}
