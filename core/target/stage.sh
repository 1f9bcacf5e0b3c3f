#!/bin/sh
# Keeps a staged closure from garbage collection. Arguments: STAGE_RUN, STAGE_PATH, CLEAN (yes|no).
#
# stage-RUN is what the run has copied, before-RUN the system that it replaced (held for the
# rollback of a whole wave). Both go with target_unstage or with the next update.

[ -e "$STAGE_PATH" ] || fail "$STAGE_PATH is not in this host's store, so it can't be kept"
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
