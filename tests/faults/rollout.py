"""One run of the program: its events as they come, its memory, its end."""

import json
import os
import subprocess
import threading
from datetime import datetime

from hosts import Red, until

FLEET = os.environ.get("FLEET") or os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "fleet"
)
ALIVE = set()  # the processes of all runs that have not been waited for
SANITIZER = ("SUMMARY: ", "runtime error:")


def seconds_of(event):
    return datetime.fromisoformat(event["ts"].replace("Z", "+00:00")).timestamp()


class Run:
    def __init__(self, words, folder, name):
        self.text_path = os.path.join(folder, f"{name}.text")
        self.events = []
        self.host_events = []
        self.peak_kb = 0
        self.killed = False
        environment = {k: v for k, v in os.environ.items() if k != "SSH_AUTH_SOCK"}
        environment.update(HOME=folder, CI="1")
        environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"
        with open(self.text_path, "wb") as text:
            self.process = subprocess.Popen(
                [FLEET, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=text,
                env=environment, cwd=folder,
            )
        ALIVE.add(self.process)
        self.log = open(os.path.join(folder, f"{name}.events"), "wb")
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.log.write(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("type") == "host_state" and event["host"] != "anchor":
                self.host_events.append(event)
            self.events.append(event)
            if len(self.events) % 32 == 0:
                self.measure()
        self.log.close()

    def measure(self):
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
                for line in file:
                    if line.startswith("VmHWM:"):
                        self.peak_kb = max(self.peak_kb, int(line.split()[1]))
        except OSError:
            pass

    def await_state(self, state, seconds):
        """Until the host has come into that state; the event."""

        def look():
            for event in self.host_events:
                if event["to"] == state:
                    return event
            if self.is_over():
                raise Red(f"the run ended before '{state}': {self.tale()}")
            return None

        return until(f"state '{state}'", look, seconds)

    def is_over(self):
        return self.process.poll() is not None and not self.reader.is_alive()

    def end_of(self, state):
        """When the host left the state, None while it has not."""
        inside = False
        for event in self.host_events:
            if inside:
                return seconds_of(event)
            inside = event["to"] == state
        return None

    def kill(self):
        self.killed = True
        self.process.kill()
        self.process.wait()
        ALIVE.discard(self.process)

    def wait(self, seconds):
        """The exit code."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise Red(f"the run did not end within {seconds} s: {self.tale()}") from error
        ALIVE.discard(self.process)
        self.reader.join(10)
        if any(word in self.text() for word in SANITIZER):
            raise Red(f"a sanitizer reported: {self.text()[-2000:]}")
        return self.process.returncode

    def state(self):
        return self.host_events[-1]["to"] if self.host_events else "none"

    def message(self):
        last = self.host_events[-1] if self.host_events else {}
        return f"{last.get('reason', '')}: {last.get('message', '')}"

    def reconnects(self):
        return sum(
            event["type"] == "log" and "the connection was lost" in event.get("line", "")
            for event in self.events
        )

    def id(self):
        return self.events[0]["run"] if self.events else ""

    def text(self):
        with open(self.text_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def tale(self):
        return " ".join(event["to"] for event in self.host_events) + f" ({self.message()})"
