"""The testbed's hosts from outside: what is true of them, and what befalls them.

Everything goes by the host's control group and by /proc/PID/root of its first process, never by
ssh and never by the program under test: so it costs nothing, works on a host whose sshd is gone,
and doesn't disturb what a test counts (logins). Needs root, and hosts of the kind `nspawn`.
"""
import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.realpath(__file__))
PROGRAM = os.path.join(os.path.dirname(HERE), "testbed", "testbed")
GUARD = "system.slice/fleet-guard.service"
SSHD = "system.slice/sshd.service"
FILLER = ".testbed-hosts-fill"
FILL_MAX = 1 << 28


def read(path):
    """The text of a file without its last newline, "" where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def read_link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def kill(pids):
    """kill -9; how many of them there were."""
    killed = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


class Testbed:
    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, FLEET_TESTBED=folder)

    def command(self, *words, check=True):
        """Runs `testbed WORD...`; its standard output."""
        done = subprocess.run([PROGRAM, *map(str, words)], env=self.environment, check=False,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        if check and done.returncode != 0:
            raise RuntimeError(f"testbed {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout

    def hosts(self):
        numbers = sorted(int(name) for name in os.listdir(os.path.join(self.folder, "hosts")))
        return [Host(self, number) for number in numbers]


class Host:
    def __init__(self, testbed, number):
        self.testbed = testbed
        self.number = number
        self.name = f"h{number}"
        self.folder = os.path.join(testbed.folder, "hosts", str(number))
        self.address = read(os.path.join(self.folder, "address"))
        self.flavours = read(os.path.join(self.folder, "flavour")).split()
        self.group = os.path.join(read(os.path.join(testbed.folder, "cgroup")), self.name)

    # ---- its processes ----

    def pids(self, below=""):
        """All processes below a control group of the host, as this machine numbers them."""
        found = []
        for folder, _, _ in os.walk(os.path.join(self.group, "payload", below)):
            found += [int(pid) for pid in read(os.path.join(folder, "cgroup.procs")).split()]
        return found

    def find(self, *words, below=""):
        """Processes whose command line holds all of these words."""
        found = []
        for pid in self.pids(below):
            line = read(f"/proc/{pid}/cmdline").replace("\0", " ")
            if line and all(word in line for word in words):
                found.append(pid)
        return found

    def leader(self):
        """Its systemd, or None while it has none."""
        pids = read(os.path.join(self.group, "payload", "init.scope", "cgroup.procs")).split()
        return int(pids[0]) if pids else None

    def path(self, path):
        """A path of the host as this machine sees it. It doesn't exist while the host is off."""
        return f"/proc/{self.leader() or 'none'}/root{path}"

    # ---- what is true of it ----

    def is_up(self):
        return "populated 1" in read(os.path.join(self.group, "cgroup.events"))

    def guard_lives(self):
        return os.path.isdir(os.path.join(self.group, "payload", GUARD))

    def running(self):
        return read_link(self.path("/run/current-system"))

    def profile_link(self):
        return read_link(self.path("/nix/var/nix/profiles/system"))

    def profile(self):
        return read_link(self.path(f"/nix/var/nix/profiles/{self.profile_link()}"))

    def boot_default(self):
        return read(self.path("/boot/loader/default"))

    def boot_id(self):
        return read(self.path("/proc/sys/kernel/random/boot_id"))

    def has_record(self):
        """An activation that was left half done."""
        return os.path.exists(self.path("/var/lib/fleet/guard/record"))

    def page(self, path):
        """What its web service answers, "" where it doesn't."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{self.address}:8080{path}", timeout=3) as answer:
                return answer.read().decode(errors="replace").strip()
        except (OSError, urllib.error.URLError, ValueError):
            return ""

    # ---- what befalls it ----

    def power_off(self):
        self.testbed.command("down", self.number)

    def power_on(self):
        self.testbed.command("start", self.number)

    def freeze(self, frozen=True):
        with contextlib.suppress(OSError):
            with open(os.path.join(self.group, "cgroup.freeze"), "w", encoding="ascii") as file:
                file.write("1" if frozen else "0")

    def reset_connections(self):
        """A reset to both ends of each of its SSH connections."""
        done = subprocess.run(["ss", "-KHtn", "src", self.address, "sport", "=", "22"], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.count("ESTAB")

    def kill_sessions(self):
        """The processes that serve its SSH connections, not the listener."""
        listener = set(self.find("[listener]", below=SSHD))
        return kill(pid for pid in self.find("sshd:", below=SSHD) if pid not in listener)

    def kill_sshd(self):
        """Listener and sessions; systemd starts the listener again."""
        return kill(self.find("sshd", below=SSHD))

    def kill_guard(self):
        """The guard's main process, or its way back."""
        return kill(self.find("guard.sh", below=GUARD)[:1])

    def kill_activation(self):
        return kill(self.find("switch-to-configuration", below=GUARD))

    def kill_nix(self):
        return kill(self.find("nix-store") + self.find("nix-env"))

    def fill(self, folder, leave=0):
        """Leaves no room there (or `leave` bytes). False where that would fill this machine's disk."""
        path = self.path(folder)
        try:
            room = os.statvfs(path)
            if room.f_blocks * room.f_frsize > FILL_MAX:
                return False
            with open(os.path.join(path, FILLER), "wb", buffering=0) as file:
                for size in (1 << 16, 512):
                    with contextlib.suppress(OSError):
                        while file.write(bytes(size)) > 0:
                            pass
                if leave:
                    file.truncate(max(0, file.tell() - leave))
        except OSError:
            return False
        return True

    def unfill(self, folder):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.path(folder), FILLER))


def wait_until(condition, seconds):
    """True once it holds, False when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True
