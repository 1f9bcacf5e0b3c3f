#!/bin/sh
# Units for the health rule. Argument: GLOBS, one a line, quoted for nothing.

# Joins systemctl's blocks of KEY=VALUE into one line a unit.
join_units() {
    clear_unit
    while IFS='=' read -r key value; do
        case $key in
        Id) id=$value ;;
        LoadState) load=$value ;;
        ActiveState) active=$value ;;
        SubState) sub=$value ;;
        NRestarts) restarts=$value ;;
        ExecMainStatus) status=$value ;;
        ActiveEnterTimestampMonotonic) entered=${value%???} ;;
        InvocationID) invocation=$value ;;
        '') say_unit ;;
        esac
    done
    say_unit
}

clear_unit() {
    id='' load=- active=- sub=- restarts=0 status=0 entered=0 invocation=-
}

say_unit() {
    [ -z "$id" ] || [ "$id" = "$UNIT" ] ||
        say unit "$id $load $active $sub ${restarts:-0} ${status:-0} ${entered:-0} ${invocation:--}"
    clear_unit
}

# What the running activation says that it stopped, started, restarted or reloaded.
say_changed() {
    [ -s "$GUARD/activation.log" ] || return 0
    for verb in stopping starting restarting reloading; do
        sed -n "s/^$verb the following units: //p" "$GUARD/activation.log"
    done | tr -s ', ' '\n' | sort -u | sed -n 's/./changed &/p'
    sed -n 's/^the following new units were started: //p' "$GUARD/activation.log" |
        tr -s ', ' '\n' | sed -n 's/./changed &/p'
}

has_systemd || fail "there is no systemd on this host to ask about units"
failing=$(failed_units) || fail "systemd does not answer on this host"
set -f
IFS='
'
# shellcheck disable=SC2086
set -- $failing $GLOBS
unset IFS
if [ $# -gt 0 ]; then
    ask_systemd show --all -p Id,LoadState,ActiveState,SubState,NRestarts,ExecMainStatus \
        -p ActiveEnterTimestampMonotonic,InvocationID -- "$@" | join_units
fi
say_changed
