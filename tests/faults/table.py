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
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return f"{os.cpu_count()} cores ({name}), Linux {os.uname().release}, {day}"


def read_cells(text):
    """The verdicts that stand there, by fault and phase: those of an earlier run."""
    cells = {}
    for line in text.splitlines():
        row = re.match(r"\|.*\(`(.*)`\) \| (.*) \|$", line)
        if row and row[1] in FAULTS:
            cells.update({(row[1], phase): said for phase, said in zip(PHASES, row[2].split(" | "))})
    return cells


def cell(names, results, before):
    fault, phase = FAULTS[names[0]], PHASES[names[1]]
    if not fault.may_end(names[1], phase.kind):
        return "–"
    if names not in results:
        return before.get(names, "not run")
    good, verdict = results[names]
    return verdict if good else "**red**"


def write_table(path, results):
    """Cells that this run did not play keep what an earlier one has found."""
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    head, _, rest = whole.partition(BEGIN)
    text, _, tail = rest.partition(END)
    before = read_cells(text)
    lines = ["| fault | " + " | ".join(name.replace("_", " ") for name in PHASES) + " |"]
    lines.append("|---" * (len(PHASES) + 1) + "|")
    count = 0
    for name, fault in FAULTS.items():
        row = [cell((name, phase), results, before) for phase in PHASES]
        count += len(row) - row.count("–")
        lines.append(f"| {fault.title} (`{name}`) | " + " | ".join(row) + " |")
    text = "\n".join([BEGIN, "", f"{count} cells; {machine()}:", "", *lines, "", END])
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + text + tail)
