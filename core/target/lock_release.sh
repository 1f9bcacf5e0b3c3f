#!/bin/sh
# Lets go of the host's lock if it is ours. Argument: LOCK_ID.

lock_release() {
    lock_enter
    if lock_is_mine "$LOCK_ID"; then
        rm -f "$RUN/lock"
        say lock released
    elif [ -n "$lock_id" ]; then
        say lock held
        lock_say
    else
        say lock free
    fi
}

lock_release
