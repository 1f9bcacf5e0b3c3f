#!/bin/sh
# Takes the host's lock, or renews it. Arguments: LOCK_ID, LOCK_RUN, LOCK_WHO, LEASE_MS,
# RENEW (yes: only what is held by that id; lost is lost, whoever has it now), FIRST (yes: nobody
# else acts for this run, so a lock of its own is held by the same machine under another name).

lock_take() {
    lock_enter
    lock_load
    if [ "$lock_id" = "$LOCK_ID" ]; then
        end_former_sshd
        lock_write "$LOCK_ID" "$LOCK_RUN" "$LOCK_WHO" "$lock_since" "$LEASE_MS"
        say lock ok
        return
    fi
    if [ "$RENEW" = yes ]; then
        say lock lost
        [ -z "$lock_id" ] || lock_say
        return
    fi
    if [ "$lock_run" != "$LOCK_RUN" ] && other_guard; then
        [ -n "$lock_id" ] || lock_run=$guard_run
        say lock held
        say lock_guard yes
        lock_say
        return
    fi
    if [ -n "$lock_id" ] && { [ "$lock_run" != "$LOCK_RUN" ] || [ "${FIRST:-no}" = yes ]; }; then
        if [ "$lock_left_ms" -gt 0 ]; then
            say lock held
            lock_say
            return
        fi
        say lock_lapsed "$lock_id $lock_run $lock_who"
    fi
    lock_write "$LOCK_ID" "$LOCK_RUN" "$LOCK_WHO" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$LEASE_MS"
    say lock ok
}

# A live guard of another run keeps the host, whatever the lease says. Sets guard_run.
other_guard() {
    guard_run=
    [ -s "$RECORD/record" ] || return 1
    while read -r key value; do
        [ "$key" != run ] || guard_run=$value
    done <"$RECORD/record"
    [ "$guard_run" != "$LOCK_RUN" ] && guard_alive
}

lock_take
