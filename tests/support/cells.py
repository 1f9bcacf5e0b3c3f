#!/usr/bin/env python3
"""Tells what `tmux capture-pane -e` says in a form that can be compared: each row's stretches of one style.

tmux tells cells that were blanked from those that were never written, and spells attributes by
what came before; a person sees neither. Blanks without a style at a row's end are left out.
"""
import re
import sys

style = set()
for line in sys.stdin.read().split("\n"):
    cells = []
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if not part.startswith("\x1b"):
            cells += [(char, tuple(sorted(style))) for char in part]
            continue
        for code in (int(code or 0) for code in part[2:-1].split(";")):
            if code == 0:
                style = set()
            elif code in (39, 49):
                style = {kept for kept in style if kept // 10 != (code - 9) // 10}
            else:
                style = {kept for kept in style if code < 30 or kept // 10 != code // 10} | {code}
    # A blank shows only that it is reversed or underlined.
    cells = [(char, tuple(code for code in codes if char != " " or code in (4, 7)))
             for char, codes in cells]
    while cells and cells[-1] == (" ", ()):
        cells.pop()
    row, last = "", ()
    for char, codes in cells:
        if codes != last:
            row += f"<{','.join(map(str, codes))}>"
            last = codes
        row += char
    print(row)
