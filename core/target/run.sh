#!/bin/sh
# Runs a command with a time-out. Arguments: COMMAND (quoted words), SECONDS_MAX.

eval "set -- $COMMAND"
{
    {
        timeout -k 2 "$SECONDS_MAX" "$@" 2>&1 3>&-
        say rc $? >&3
    } | {
        head -c 1000000 | sed 's/^/out /'
        exec cat >/dev/null
    }
} 3>&1
echo
