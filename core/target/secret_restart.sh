#!/bin/sh
# Restarts the units that secret_put.sh has noted. Argument: SECONDS_MAX. Keys: restarted (repeated: a
# unit), restart_failed (repeated: a unit that failed then), restart_slow (yes: not all had started
# within that time; they go on), out (repeated: what systemctl said).
#
# One that runs is restarted, and one that has failed: it may have failed for want of the secret.
# One that was stopped reads it when it starts. One that was started since has read it.

due_units() {
    sort -u "$RUN/restart" | while read -r invocation unit; do
        now=$(ask_systemd show -p InvocationID --value -- "$unit")
        [ "${now:--}" = "$invocation" ] || continue
        case $(ask_systemd show -p ActiveState --value -- "$unit") in
        inactive | '') ;;
        *) printf '%s\n' "$unit" ;;
        esac
    done
}

restart() {
    due=$(due_units)
    if [ -n "$due" ]; then
        IFS='
'
        # shellcheck disable=SC2086 # One word a line.
        said=$(timeout "$SECONDS_MAX" systemctl --no-pager restart -- $due 2>&1)
        case $? in
        124) say restart_slow yes ;;
        esac
        for unit in $due; do
            case $(ask_systemd is-active -- "$unit") in
            failed) say restart_failed "$unit" ;;
            *) say restarted "$unit" ;;
            esac
        done
        [ -z "$said" ] || printf '%s\n' "$said" | head -n 20 | sed 's/^/out /'
    fi
    rm -f "$RUN/restart"
}

[ ! -s "$RUN/restart" ] || restart
