#!/bin/sh
# Records what is true, on disk, and starts the guard. Arguments: LOCK_ID ("" for none), PROFILE,
# NONCE, ACT_RUN, ACTION, NEW, ACTIVATE_MS, CONFIRM_MS, REV, DIRTY, WHO, TO, LEAVE, GUARD_SH.
# guard_poll.sh follows with its arguments: an activation that takes less than half a second is over
# in the answer.
#
# All of it under the lock's flock, so two starts can't meet; systemd itself refuses a second unit.

refuse() { # word, text
    say guard "$1"
    [ -z "${2:-}" ] || say detail "$2"
    exit 0
}

may_start() {
    if [ -n "$LOCK_ID" ] && ! lock_is_mine "$LOCK_ID"; then
        [ -z "$lock_id" ] || lock_say
        refuse lock-lost
    fi
    if has_systemd; then
        [ "$(ask_systemd is-system-running)" != stopping ] || refuse stopping
    fi
    ! guard_alive || refuse busy "$UNIT of an earlier activation is still there"
    if has_systemd; then
        case $(ask_systemd is-active nixos-rebuild-switch-to-configuration.service) in
        active | activating | deactivating | reloading)
            refuse busy "a nixos-rebuild switch is running"
            ;;
        esac
    fi
    if [ -e "$RECORD/record" ]; then
        record_load
        load_phase
        # A start that was cut off before its guard existed has done nothing.
        [ "$phase" = prepared ] || [ -z "$phase" ] || refuse unfinished "$phase_line"
    fi
    [ -x "$NEW/bin/switch-to-configuration" ] ||
        refuse no-switch "$NEW/bin/switch-to-configuration is missing or not executable"
}

# Sets old, link, linked, generation. A running system that is NEW already goes back to the profile's.
find_old() {
    resolve "$PROFILE"
    linked=$target
    link=$(readlink "$PROFILE" 2>/dev/null) || link=
    resolve /run/current-system
    old=$target
    if [ "$old" = "$NEW" ] && [ -x "$linked/bin/switch-to-configuration" ]; then
        old=$linked
    fi
    [ "$ACTION" = committed ] || [ -x "$old/bin/switch-to-configuration" ] ||
        refuse no-switch "the running system ${old:-(none)} has no executable bin/switch-to-configuration to go back with"
    top_generation "$PROFILE"
    top=$generation
}

# Prints the services of the old system that are active: after a way back they shall be so again.
old_services() {
    has_systemd || return 0
    for unit in $(active_services); do
        [ ! -e "$old/etc/systemd/system/$unit" ] || printf '%s ' "$unit"
    done
}

write_record() {
    rm -rf "$RECORD"
    mkdir -p "$VAR" && mkdir -m 0700 "$RECORD" || return 1
    make_room "$RECORD/phase" "prepared $NONCE" || return 1
    printf '%-4095s\n' '' >"$RECORD/words" || return 1
    mkdir -p "$ROOTS" && write_link "$NEW" "$ROOTS/guard-new" || return 1
    [ -z "$old" ] || write_link "$old" "$ROOTS/guard-old" || return 1
    read_boot_id
    read_menu
    weak=yes
    ! has_systemd || weak=no
    activate_s=$(((ACTIVATE_MS + 999) / 1000))
    printf '%s\n' "nonce $NONCE" "run $ACT_RUN" "action $ACTION" "new $NEW" "old $old" \
        "profile $PROFILE" "link $link" "linked $linked" "top $top" "before $before" \
        "path_first $old" "activate_s $activate_s" "confirm_ms $CONFIRM_MS" "rev $REV" \
        "dirty $DIRTY" "who $WHO" "to $TO" "leave $LEAVE" "boot $boot_id" "weak $weak" \
        "menu $menu_now" "loaded $(units_loaded)" "active $(old_services)" \
        >"$RECORD/record.tmp" && mv -f "$RECORD/record.tmp" "$RECORD/record" || return 1
    to_disk "$RECORD/record" "$RECORD/phase" "$RECORD" "$VAR" "$ROOTS"
}

lock_enter
may_start
find_old
before=$(failed_units | tr '\n' ' ')
if ! make_guard_folder '' || ! write_record; then
    rm -rf "$RECORD"
    rm -f "$ROOTS/guard-new" "$ROOTS/guard-old"
    fail "the guard's files could not be made: no room in $RUN, $VAR or /nix, or read-only"
fi
if ! launch_guard main; then
    # Nothing runs, so nothing can have happened.
    guard_alive || { rm -rf "$RECORD" && rm -f "$ROOTS/guard-new" "$ROOTS/guard-old"; }
    fail "the guard could not be started on this host"
fi
say guard started
say weak "$weak"
say old "$old"
generation_of "$link"
say generation "$generation"
lock_leave
PASSES=activating
