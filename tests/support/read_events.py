#!/usr/bin/env python3
"""What a test asks about a run's events (--json, a journal).

usage: read_events.py state FILE HOST      the state it is in, then its reason and its message
       read_events.py states FILE HOST     all states it went through, in one line
       read_events.py most FILE HOST...    how many of them were in flight at once: from activating
                                           to an end
       read_events.py end FILE             the exit code and the counts of the run's end
       read_events.py show FILE            everything, for a person, in short lines
       read_events.py check FILE SCHEMA    each line by the schema, and seq without a gap
"""

import json
import os
import sys

DEBIAN_PYTHON = "/usr/bin/python3"


def load(name):
    events = []
    with open(name, encoding="utf-8") as file:
        for line in file:
            events.append(json.loads(line))
    return events


def moves(events, host):
    return [e for e in events if e["type"] == "host_state" and e["host"] == host]


def most_in_flight(events, hosts):
    most, flying = 0, set()
    for event in events:
        if event["type"] != "host_state" or event["host"] not in hosts:
            continue
        if event["to"] == "activating":
            flying.add(event["host"])
        elif event["to"] in ("healthy", "rolled_back", "failed"):
            flying.discard(event["host"])
        most = max(most, len(flying))
    return most


def check(events, schema_name):
    for i, event in enumerate(events):
        if event["seq"] != events[0]["seq"] + i:
            sys.exit(f"event {i + 1} has seq {event['seq']}: there is a gap")
    try:
        import jsonschema
    except ImportError:
        # Debian's package is for Debian's Python, which need not be the first in PATH.
        if sys.executable == DEBIAN_PYTHON:
            raise
        os.execv(DEBIAN_PYTHON, [DEBIAN_PYTHON, *sys.argv])
    with open(schema_name, encoding="utf-8") as file:
        validator = jsonschema.Draft202012Validator(json.load(file))
    for event in events:
        for error in validator.iter_errors(event):
            inner = jsonschema.exceptions.best_match([error])
            sys.exit(f"{json.dumps(event)}: {inner.json_path}: {inner.message}")


def show(events):
    for event in events:
        known = ("v", "seq", "run", "type", "ts", "wave", "current", "desired", "generation")
        rest = [f"{k}={v}" for k, v in event.items() if k not in known and v not in (None, "")]
        print(event["ts"][11:23], event["type"], *rest)


def main():
    what, events = sys.argv[1], load(sys.argv[2])
    if what == "state":
        last = moves(events, sys.argv[3])[-1]
        print(last["to"], last.get("reason", "") or "-", last.get("message", ""))
    elif what == "states":
        print(*[e["to"] for e in moves(events, sys.argv[3])])
    elif what == "most":
        print(most_in_flight(events, sys.argv[3:]))
    elif what == "end":
        last = events[-1]
        counts = {k: v for k, v in last.get("counts", {}).items() if v}
        print(last["type"], last.get("exit"), json.dumps(counts, sort_keys=True))
    elif what == "show":
        show(events)
    elif what == "check":
        check(events, sys.argv[3])


main()
