"""docs/faults.md's table: each cell's verdict, from the run's results."""

import os
import re
import time

from faults import FAULTS
from phases import PHASES

BEGIN, END = "<!-- tests/faults/run --table: from here -->", "<!-- to here -->"


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    name = model[1] if model else os.uname().machine
    return f"{os.cpu_count()} cores ({name}), Linux {os.uname().release}, {time.strftime('%Y-%m-%d', time.gmtime())}"


def cell(fault_name, phase_name, results):
    fault, phase = FAULTS[fault_name], PHASES[phase_name]
    if not fault.may_end(phase_name, phase.kind):
        return "–"
    good, verdict = results.get((fault_name, phase_name), (None, ""))
    if good is None:
        return "not run"
    return verdict if good else "**red**"


def write_table(path, results):
    lines = ["| fault | " + " | ".join(name.replace("_", " ") for name in PHASES) + " |"]
    lines.append("|---" * (len(PHASES) + 1) + "|")
    for name, fault in FAULTS.items():
        lines.append(f"| {fault.title} (`{name}`) | " + " | ".join(cell(name, phase, results) for phase in PHASES) + " |")
    text = "\n".join([BEGIN, "", f"{len(results)} cells on {machine()}:", "", *lines, "", END])
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + text + after)
