#!/bin/sh
# Finishes what a guard that is gone has left. Arguments: LOCK_ID, GUARD_SH, WAIT_MS.
#
# The work is done by a guard of its own, as an activation may end this connection; this waits for
# its last word.

say_finished() { # word
    say finished "$1"
    resolve /run/current-system
    say current "$target"
    resolve "$profile"
    say profile "$target"
}

lock_enter
if [ -n "$LOCK_ID" ] && ! lock_is_mine "$LOCK_ID"; then
    say finished lock-lost
    exit 0
fi
profile=$PROFILE
if ! record_load; then
    # Cut off before the record was whole: nothing had begun.
    rm -rf "$RECORD"
    rm -f "$ROOTS/guard-new" "$ROOTS/guard-old"
    say_finished nothing
    exit 0
fi
! guard_alive || {
    say finished busy
    exit 0
}
load_phase
make_guard_folder "$phase_line" || fail "the guard's files could not be made: is /run full?"
launch_guard repair || fail "the guard could not be started on this host"
lock_leave
tick
until_ms=$((now_ms + WAIT_MS))
while { [ -e "$RECORD/record" ] || guard_alive; } && [ "$now_ms" -lt $until_ms ]; do
    sleep 0.2
    tick
done
[ ! -e "$RECORD/record" ] || fail "the repair has not ended yet; look at $GUARD/activation.log on the host"
last=
read -r last <"$VAR/guard.last"
say last "$last"
case $last in
committed*) say_finished forward ;;
reverted*) say_finished back ;;
inert*) say_finished nothing ;;
*) say_finished failed ;;
esac
