#!/bin/sh
# The way back: what a guard does, however its main process ended, when the new system is not to stay.
# Part of guard.sh.
#
# Profile, boot default and running system are put back, and what would not go is tried again, as
# what stood in its way (a full /run or disk, another switch under NixOS's lock, a systemd that does
# not answer) mostly passes. The pauses are 1, 2, 4, 8 and then 15 seconds; meanwhile the state says
# try=N, the try to come, and stuck=WORD. The patience is two minutes, or activate_timeout where that
# is longer. What fails with nothing in its way does so by its own fault and is given up sooner.

BACK_MIN_S=120
TRIES_IN_VAIN=5
RELOAD_ROOM_KB=16384 # systemd reloads nothing with less than that in /run

# True while this machine goes down: a way back would fight the shutdown, which is one itself.
going_down() {
    has_systemd && [ "$(ask_systemd is-system-running)" = stopping ]
}

way_back() {
    down=no
    ! going_down || down=yes
    [ $down = no ] || [ "$why" != killed ] || why=reboot
    word=reverting
    [ "$phase" != committing ] || word=committing
    [ "$(readlink "$profile" 2>/dev/null)" = "$link" ] || word=committing
    put_phase "$word $nonce $said why=$why"
    # Left as it is, with its record: whoever comes after the reboot repairs it, forward or back.
    [ $down = no ] || [ $word = reverting ] || exit 0
    put_state "reverting $nonce $said why=$why"
    what_is_left
    while ! put_back && wait_for_try; do :; done
    made_do
    said="$said why=$why back_rc=$back_rc"
    [ "$booted_rc" -eq 0 ] || said="$said boot_rc=$booted_rc"
    if ! went_back; then
        resolve /run/current-system
        finish "revert-failed $nonce $said${stuck:+ stuck=$stuck} current=$target"
    fi
    finish "reverted $nonce $said"
}

# Sets commit_left and running_left, what has to be put back, and when it is given up.
what_is_left() {
    back_rc=0 booted_rc=0 stuck='' tries=1 vain=0 nap=1
    commit_left=yes running_left=yes half=no
    [ $word = committing ] || commit_left=no
    resolve /run/current-system
    # After a power cut the machine came up in its boot default; only a new system that became that
    # is taken back by activation.
    if [ "$boot" = "$boot_id" ]; then
        # One that was killed may have been half-way.
        [ ! -e "$RECORD/back" ] || [ "$target" != "$old" ] || half=yes
    elif [ "$target" != "$new" ]; then
        running_left=no
    fi
    true >"$RECORD/back"
    patience_s=$BACK_MIN_S
    [ "$activate_s" -le $patience_s ] || patience_s=$activate_s
    tick
    until_ms=$((now_ms + patience_s * 1000))
}

# One try of what is left. True when nothing is, or the shutdown sees to it.
put_back() {
    [ $commit_left = no ] || ! undo_commit || commit_left=no
    if [ $running_left = yes ] && [ $down = no ]; then
        ! activate_old || running_left=no
        # A shutdown that began meanwhile is in its way, and is the way back itself.
        ! going_down || down=yes
    fi
    [ $commit_left = no ] && { [ $running_left = no ] || [ $down = yes ]; }
}

# After a try that failed: pauses until it is time for the next. False when there is to be none.
wait_for_try() {
    [ $down = no ] || return 1
    find_obstacle
    if [ -z "$stuck" ]; then
        vain=$((vain + 1))
        resolve /run/current-system
        most=$TRIES_IN_VAIN
        [ $commit_left = yes ] || [ "$target" != "$old" ] || most=3
        [ $vain -lt $most ] || return 1
    fi
    tries=$((tries + 1))
    put_state "reverting $nonce $said why=$why try=$tries${stuck:+ stuck=$stuck}"
    while tick && [ $((now_ms + nap * 1000)) -lt $until_ms ]; do
        sleep $nap
        nap=$((nap * 2))
        [ $nap -le 15 ] || nap=15
        if going_down; then
            down=yes
            return 1
        fi
        # A try without room may stop what it can't start again.
        [ "$stuck" = room ] && ! has_room || return 0
    done
    return 1
}

# Sets stuck: what stands in the way and may pass by itself, "" where nothing is known to.
find_obstacle() {
    stuck=
    if ! has_room; then
        stuck=room
    elif [ "$back_rc" -eq 11 ]; then
        stuck=lock
    elif has_systemd; then
        case $(ask_systemd is-system-running) in
        '' | offline | unknown) stuck=systemd ;;
        esac
    fi
}

has_room() {
    for place in "$GUARD" "$RECORD" "$ROOTS"; do
        [ -d "$place" ] || continue
        room=yes
        printf '%4095s\n' '' >"$place/room" || room=no
        rm -f "$place/room"
        [ $room = yes ] || return 1
    done 2>/dev/null
    ! has_systemd || {
        # shellcheck disable=SC2046
        set -- $(df -Pk /run 2>/dev/null | tail -n 1)
        [ "${4:-$RELOAD_ROOM_KB}" -ge $RELOAD_ROOM_KB ]
    }
}

undo_commit() {
    undone=yes
    if ! unset_profile >"$RECORD/words" 2>&1; then
        head -c 4000 "$RECORD/words" >>"$GUARD/activation.log"
        note "$profile could not be taken back to ${link:-nothing}"
        undone=no
    fi
    system=${linked:-$old}
    if [ -x "$system/bin/switch-to-configuration" ]; then
        undo_menu || undone=no
    fi
    [ $undone = yes ]
}

undo_menu() {
    switch_to "$system" boot "$activate_s"
    booted_rc=$rc
    [ "$rc" -ne 0 ] || return 0
    note "$system/bin/switch-to-configuration boot failed (exit status $rc)"
    # Where the commit had failed in the same way the menu is still the one from before.
    read_menu
    [ -n "$menu_now" ] && [ "$menu_now" = "$menu" ] || return 1
    note "the boot default is the one from before all the same"
    booted_rc=0
}

activate_old() {
    read_before=$(units_loaded)
    switch_to "$old" test "$activate_s"
    back_rc=$rc
    resolve /run/current-system
    case $back_rc:$target in
    0:"$old" | 4:"$old")
        # Units that failed may hide that systemd refused to reload.
        [ "$back_rc" -eq 0 ] || [ "$(units_loaded)" != "$read_before" ] || half=yes
        [ $half = no ] || ! has_systemd || mend_services
        return
        ;;
    esac
    half=yes
    # Where systemd has read nothing of the new system there is nothing that a try would change.
    [ "$target" = "$old" ] && has_systemd && ! has_reloaded && mend_services
}

# The last of the tries has failed, and the old system runs: by its own script's fault, and no worse than
# before, where its services can be had.
made_do() {
    [ $running_left = yes ] && [ $down = no ] || return 0
    resolve /run/current-system
    [ "$target" = "$old" ] || return 0
    if has_systemd; then
        ! mend_services || running_left=no
    else
        case $back_rc in
        2 | 3) running_left=no ;;
        esac
    fi
}

went_back() {
    resolve "$profile"
    [ "$target" = "$linked" ] || return 1
    [ $down = no ] || return 0
    resolve /run/current-system
    [ $running_left = no ] && { [ "$boot" != "$boot_id" ] || [ "$target" = "$old" ]; }
}

# True unless systemd still has every unit as it was before the activation.
has_reloaded() {
    case $loaded:$said in
    :"rc=3" | :"rc=3 "*) return 1 ;; # one that can't tell (before 250), and refused to
    :*) return 0 ;;
    esac
    [ "$(units_loaded)" != "$loaded" ]
}

# True if the new system has services that systemd was to read and did not. A script that brings none may
# well do without a reload.
reload_was_refused() {
    ! has_reloaded || return 1
    compare_services
    [ -n "$to_stop$to_restart$to_reload" ]
}

# A try that failed half-way may have stopped services, or started them by the new system's unit files
# (/run full: systemd refuses to reload, and the rest goes on). Later tries don't see that: they compare
# files, which are the old system's by then. So each service is brought to its old form here. False
# where systemd can't be had to read it.
mend_services() {
    compare_services
    if has_reloaded; then
        if ! timeout 60 systemctl --no-pager daemon-reload 2>/dev/null; then
            note "systemd does not reload, so services may still run as the new system has them"
            return 1
        fi
    else
        to_reload='' to_restart=''
    fi
    tell_systemd stop "$to_stop"
    tell_systemd try-reload-or-restart "$to_reload"
    tell_systemd try-restart "$to_restart"
    running=$(active_services) || return 1
    to_start=
    for unit in $active; do
        case $running in
        *" $unit "*) ;;
        *) to_start="$to_start $unit" ;;
        esac
    done
    tell_systemd start "$to_start"
}

# Sets to_stop, to_restart and to_reload, by the rules of NixOS.
compare_services() {
    to_stop='' to_restart='' to_reload=''
    for there in "$new"/etc/systemd/system/*.service; do
        unit=${there##*/}
        is=$old/etc/systemd/system/$unit
        case $unit in
        # Templates are nothing that runs. Where nothing matched, the pattern itself is what systemctl
        # would take for every service there is.
        *@.service | *'*'*) continue ;;
        esac
        # NixOS puts its own words on packaged units into drop-ins.
        if [ ! -e "$is" ]; then
            grep -qs '^X-StopOnRemoval=false' "$there" "$there.d"/*.conf || to_stop="$to_stop $unit"
        elif same_service "$there" "$is" ||
            grep -qs '^X-RestartIfChanged=false' "$is" "$is.d"/*.conf; then
            continue
        elif grep -qs '^X-ReloadIfChanged=true' "$is" "$is.d"/*.conf; then
            to_reload="$to_reload $unit"
        else
            to_restart="$to_restart $unit"
        fi
    done
}

# True if two unit files are the same, and the drop-ins beside them.
same_service() {
    cmp -s "$1" "$2" || return 1
    for part in "$1.d"/*.conf "$2.d"/*.conf; do
        [ -e "$part" ] || continue
        cmp -s "$1.d/${part##*/}" "$2.d/${part##*/}" || return 1
    done
}

tell_systemd() { # verb, units
    [ -n "$2" ] || return 0
    # shellcheck disable=SC2086
    run_logged "$activate_s" systemctl --no-pager "$1" -- $2
    [ "$rc" -eq 0 ] || note "systemctl $1$2 failed (exit status $rc)"
    return 0
}
