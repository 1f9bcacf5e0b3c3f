#!/bin/sh
# Runs a command with a time-out, and tells its exit status and then its last words. Arguments:
# COMMAND (quoted words), SECONDS_MAX.
#
# What it leaves behind in the background may keep its output open for ever, so the end of that is a line of
# ours. tail speaks only when it has come, so the status is out by then.

eval "set -- $COMMAND"
mark=fleet-run-$$-ends
{
    {
        timeout -k 2 "$SECONDS_MAX" "$@" 2>&1 3>&-
        say rc $? >&3
        printf '\n%s\n' "$mark"
    } | sed -n "/^$mark\$/q;p" | tail -c 2000 | sed 's/^/out /'
} 3>&1
echo
