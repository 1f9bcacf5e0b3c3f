#!/bin/sh
# Sets the profile and the boot default at once, without activation. Arguments as guard_start.sh.

commit_now() {
    resolve "$PROFILE"
    linked=$target
    link=$(readlink "$PROFILE" 2>/dev/null) || link=
    top_generation "$PROFILE"
    top=$generation
    profile=$PROFILE new=$NEW to=$TO run=$ACT_RUN rev=$REV dirty=$DIRTY who=$WHO
    seconds=$(((ACTIVATE_MS + 999) / 1000))
    rc=0
    set_profile >&2 || rc=1
    if [ $rc -eq 0 ]; then
        to_disk "${profile%/*}"
        boot_system "$new" || rc=$?
    fi
    if [ $rc -ne 0 ]; then
        unset_profile >&2
        [ ! -x "$linked/bin/switch-to-configuration" ] || boot_system "$linked"
    else
        mkdir -p "$VAR" && write_deployed
    fi
    say rc $rc
    generation_of "$(readlink "$PROFILE")"
    say generation "$generation"
}

boot_system() { # system
    NIXOS_INSTALL_BOOTLOADER=0 timeout -k 5 $seconds "$1/bin/switch-to-configuration" boot >&2
}

lock_enter
if [ -n "$LOCK_ID" ] && ! lock_is_mine "$LOCK_ID"; then
    say rc -1
    say guard lock-lost
    exit 0
fi
if guard_alive || [ -e "$RECORD/record" ]; then
    say rc -1
    say guard busy
    exit 0
fi
[ -x "$NEW/bin/switch-to-configuration" ] ||
    fail "$NEW/bin/switch-to-configuration is missing or not executable"
# What the tools say becomes `log` lines; the answers go past them. Where the operator has gone, it is read
# all the same: a tool that can't speak any more would end in the middle of its work.
{ commit_now 2>&1 >&3 3>&- | {
    sed 's/^/log /'
    exec cat >/dev/null
}; } 3>&1
