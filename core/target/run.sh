#!/bin/sh
# Runs a command with a time-out, and tells its exit status and then its last words. Arguments:
# COMMAND (quoted words), SECONDS_MAX.
#
# tail speaks only when the command's side of the pipe is closed, so the status is out by then.

eval "set -- $COMMAND"
{
    {
        timeout -k 2 "$SECONDS_MAX" "$@" 2>&1 3>&-
        say rc $? >&3
    } | tail -c 2000 | sed 's/^/out /'
} 3>&1
echo
