#!/usr/bin/env python3
"""Runs a command at a terminal of its own and answers its first question that ends with a colon.

usage: answer_tty.py ANSWER COMMAND...     what it prints goes to standard output; its exit status
"""

import os
import pty
import sys

asked = [False]


def read(fd):
    data = os.read(fd, 4096)
    if not asked[0] and data.rstrip().endswith(b":"):
        asked[0] = True
        os.write(fd, sys.argv[1].encode() + b"\n")
    return data


sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[2:], read)))
