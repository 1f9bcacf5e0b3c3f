#!/bin/sh
# Puts a secret into its place in one step. Arguments: SECRET_PATH, OWNER, GROUP, MODE, CONTENT
# (base64). The content is never an argument of a program: printf is the shell's own.

umask 077
folder=${SECRET_PATH%/*}
[ -d "$folder" ] || (umask 022 && mkdir -p "${folder:-/}") ||
    fail "$folder can't be made: is its file system full or read-only?"
new=$(mktemp "$folder/.fleet-secret.XXXXXX") || fail "no file can be made in $folder"
trap 'rm -f "$new"' EXIT
printf '%s' "$CONTENT" | base64 -d >"$new" || fail "$new can't be written: is its disk full?"
chown -- "$OWNER:$GROUP" "$new" || fail "there is no owner $OWNER or no group $GROUP there"
chmod "$MODE" "$new" || fail "$new can't be given the mode $MODE"
to_disk "$new"
mv -fT -- "$new" "$SECRET_PATH" || fail "$SECRET_PATH can't be replaced"
trap - EXIT
say secret written
