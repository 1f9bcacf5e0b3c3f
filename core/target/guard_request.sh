#!/bin/sh
# Leaves a request for the guard. Arguments: REQUEST (renew|commit|abort|leave), NONCE, and for the
# lock LOCK_ID ("" for none), LEASE_MS. guard_poll.sh
# follows with its arguments, and waits for the guard's answer to the request for a moment.
#
# A request of a run that has lost the host is not left, but an abort always may be.

request() {
    state=
    [ ! -s "$GUARD/state" ] || read -r state <"$GUARD/state"
    # Only a guard that waits is asked to keep something, and for a commit the activation must have gone
    # well; an abort waits for its turn.
    case $REQUEST:$state in
    commit:*' fault='*) say request refused && return ;;
    abort:*" $NONCE" | abort:*" $NONCE "* | *:"active $NONCE "*) ;;
    *) say request refused && return ;;
    esac
    if [ -n "$LOCK_ID" ] && [ "$REQUEST" != abort ]; then
        lock_enter
        if ! lock_is_mine "$LOCK_ID"; then
            say request lock-lost
            lock_say
            return
        fi
        lock_write "$lock_id" "$lock_run" "$lock_who" "$lock_since" "$LEASE_MS"
        lock_leave
    fi
    leave_request
}

# The room of a renewal comes back with the guard's own rename; one that was not seen yet stands.
leave_request() {
    if printf '%-127s\n' "$NONCE" 1<>"$GUARD/$REQUEST.new" &&
        mv -f "$GUARD/$REQUEST.new" "$GUARD/$REQUEST"; then
        # The guard answers at once where it waits: its word is worth half a second.
        [ ! -p "$GUARD/news" ] || exec 7<>"$GUARD/news"
        echo r 1<>"$GUARD/wake"
        say request left
        SEEN=$state WAIT_MS=500
        [ "$REQUEST" != commit ] || PASSES=committing
    else
        fail "the request can't be written to $GUARD: is /run full?"
    fi
}

request
