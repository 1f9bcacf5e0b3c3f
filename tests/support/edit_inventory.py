#!/usr/bin/env python3
"""Makes a test's inventory out of the testbed's.

usage: testbed inventory | edit_inventory.py WORD... >fleet.json

  h3             keeps this host as it is; hosts that no word names are left out
  h3=/nix/...    keeps it, with this store path as its system
  a.b.c=JSON     sets a value by its path from the top; `*` stands for every key, and objects are
                 made on the way. A number is an index of an array
"""

import json
import re
import sys


def set_at(node, path, value):
    key, rest = path[0], path[1:]
    if key == "*":
        keys = list(node)
    else:
        keys = [int(key) if isinstance(node, list) else key]
    for each in keys:
        if not rest:
            node[each] = value
            continue
        if isinstance(node, dict):
            node.setdefault(each, {})
        set_at(node[each], rest, value)


def main():
    inventory = json.load(sys.stdin)
    kept = {}
    settings = []
    for word in sys.argv[1:]:
        host = re.fullmatch(r"(h\d+)(?:=(/.*))?", word)
        if host is None:
            path, _, value = word.partition("=")
            settings.append((path.split("."), json.loads(value)))
            continue
        entry = inventory["hosts"][host[1]]
        if host[2]:
            entry["system"] = {"path": host[2]}
        kept[host[1]] = entry
    inventory["hosts"] = kept
    for path, value in settings:
        set_at(inventory, path, value)
    json.dump(inventory, sys.stdout, indent=2)


main()
