#!/bin/sh
# Puts a secret into its place in one step. Arguments: LOCK_ID (under which it is done), SECRET_PATH,
# OWNER, GROUP, MODE, CONTENT (base64), UNITS (to be restarted by secret_restart.sh, one a line).
# The content is never an argument of a program: printf is the shell's own. Key: secret ("written" |
# "lock-lost": nothing was done).

umask 077

# $RUN/restart remembers the units from before the secret is there till they were restarted: a line
# "INVOCATION UNIT" each ("-" where it never ran), so that one that has been started anew since
# is not restarted for nothing, and none is forgotten when the operator dies in between.
note_units() {
    has_systemd || return 0
    printf '%s\n' "$UNITS" | while IFS= read -r unit; do
        [ -n "$unit" ] || continue
        invocation=$(ask_systemd show -p InvocationID --value -- "$unit")
        printf '%s %s\n' "${invocation:--}" "$unit"
    done >>"$RUN/restart" || fail "$RUN/restart can't be written: is /run full?"
}

# The folder may belong to somebody who is no friend: he can put a link or a file of his own in the
# place of ours at any time. So the secret is made in a folder that he can't look into, entered before it
# is used, and from there renamed to its place.
put() {
    folder=${SECRET_PATH%/*}
    [ -d "$folder" ] || (umask 022 && mkdir -p "${folder:-/}") ||
        fail "$folder can't be made: is its file system full or read-only?"
    room=$(mktemp -d "$folder/.fleet-secret.XXXXXX") || fail "no file can be made in $folder"
    trap 'cd / && rm -rf -- "$room"' EXIT
    if ! cd "$room" || [ "$(stat -c '%u %a' .)" != "$(id -u) 700" ]; then
        fail "somebody meddles with $folder: $room is not what it was made as"
    fi
    new=$(mktemp ./secret.XXXXXX) || fail "no file can be made in $folder"
    printf '%s' "$CONTENT" | base64 -d >"$new" ||
        fail "a file in $folder can't be written: is its disk full?"
    words=$(chown -- "$OWNER:$GROUP" "$new" 2>&1) ||
        fail "there is no owner $OWNER or no group $GROUP there (${words#chown: }): name ones that are \
there, or, where the new system makes them, set \"when\": \"after\" for this secret"
    chmod "$MODE" "$new" || fail "$SECRET_PATH can't be given the mode $MODE"
    to_disk "$new"
    [ -z "$UNITS" ] || note_units
    mv -fT -- "$new" "../${SECRET_PATH##*/}" || fail "$SECRET_PATH can't be replaced"
    say secret written
}

lock_enter
if lock_is_mine "$LOCK_ID"; then
    lock_leave
    put
else
    say secret lock-lost
fi
