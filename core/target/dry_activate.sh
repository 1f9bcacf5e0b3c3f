#!/bin/sh
# Shows what an activation would do. Arguments: NEW, SECONDS_MAX.

program=$NEW/bin/switch-to-configuration
[ -x "$program" ] || fail "$program is missing or not executable"
{
    {
        timeout -k 2 "$SECONDS_MAX" "$program" dry-activate 2>&1 3>&-
        say rc $? >&3
    } | {
        head -c 1000000 | sed 's/^/log /'
        exec cat >/dev/null
    }
} 3>&1
