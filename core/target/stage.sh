#!/bin/sh
# Keeps a staged closure from garbage collection. Arguments: STAGE_RUN, STAGE_PATH, CLEAN (yes|no).
#
# stage-RUN is what the run has copied, before-RUN the system that it replaced (held for the
# rollback of a whole wave). Both go with target_unstage or with the next update.
#
# Also says what a commit will need: bytes free on /boot, and those that the new system's kernel and
# initrd take there, none where the running or the booted system has brought them already.

[ -e "$STAGE_PATH" ] || fail "$STAGE_PATH is not in this host's store. \`fleet generations\` lists \
what it can go back to; an update brings what it lacks"
mkdir -p "$ROOTS"
write_link "$STAGE_PATH" "$ROOTS/stage-$STAGE_RUN" ||
    fail "$ROOTS/stage-$STAGE_RUN can't be made: is /nix full or read-only?"
if [ "$CLEAN" = yes ]; then
    for root in "$ROOTS"/stage-* "$ROOTS"/before-*; do
        case $root in
        *-"$STAGE_RUN") ;;
        *) rm -f "$root" ;;
        esac
    done
fi
say root "$ROOTS/stage-$STAGE_RUN"
[ ! -d /boot ] || df -Pk /boot 2>/dev/null | {
    read -r _
    read -r _ _ _ free _
    [ -z "$free" ] || say free_boot $((free * 1024))
}
need=0
for part in kernel initrd; do
    resolve "$STAGE_PATH/$part"
    [ -f "$target" ] || continue
    wanted=$target
    for system in /run/current-system /run/booted-system; do
        resolve "$system/$part"
        [ "$target" != "$wanted" ] || continue 2
    done
    need=$((need + $(stat -c %s "$wanted")))
done
say boot_need $need
