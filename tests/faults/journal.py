"""What a run has written down: the journal that `resume` reads, too."""
import json
import os


def latest(state_dir):
    """The id of the latest run there, None where there is none."""
    runs = os.path.join(state_dir, "runs")
    found = sorted(os.listdir(runs)) if os.path.isdir(runs) else []
    return found[-1] if found else None


def read_journal(state_dir):
    """The events of the latest run. A last line that was cut off is none."""
    path = os.path.join(state_dir, "runs", latest(state_dir) or "none", "journal.jsonl")
    events = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
    except OSError:
        return events
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def ends(events):
    """Of each host its last state, reason and message."""
    return {event["host"]: (event["to"], event.get("reason") or "", event.get("message") or "")
            for event in events if event["type"] == "host_state"}
