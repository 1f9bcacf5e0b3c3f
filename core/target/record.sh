#!/bin/sh
# The guard's files, and the two directions in which a deployment can be finished: commit and undo.
# Part of guard.sh and of the scripts that start, follow or repair a guard.
#
# $RECORD/record  "key value" lines, written once and on disk before anything is done
# $RECORD/phase   the state line as of the last phase that must survive a power cut
# $GUARD/state    the same line for the operator, in every phase
# Files are made with room before the activation and then overwritten in a spare that is renamed
# over the old one, whose room becomes the next spare: neither /run nor the disk may fill up.

record_load() {
    [ -s "$RECORD/record" ] || return 1
    nonce='' run='' action='' new='' old='' profile='' link='' linked='' top=0 before='' path_first=''
    activate_s=600 confirm_ms=60000 rev='' dirty=false who='' to=0 leave=no boot='' weak=no menu=''
    loaded='' active=''
    while read -r key value; do
        case $key in
        nonce) nonce=$value ;;
        run) run=$value ;;
        action) action=$value ;;
        new) new=$value ;;
        old) old=$value ;;
        profile) profile=$value ;;
        link) link=$value ;;
        linked) linked=$value ;;
        top) top=$value ;;
        before) before=$value ;;
        path_first) path_first=$value ;;
        activate_s) activate_s=$value ;;
        confirm_ms) confirm_ms=$value ;;
        rev) rev=$value ;;
        dirty) dirty=$value ;;
        who) who=$value ;;
        to) to=$value ;;
        leave) leave=$value ;;
        boot) boot=$value ;;
        weak) weak=$value ;;
        menu) menu=$value ;;
        loaded) loaded=$value ;;
        active) active=$value ;;
        esac
    done <"$RECORD/record"
    set_path "$path_first"
    [ -n "$nonce" ] && [ -n "$new" ]
}

# Makes a file of one line with room for any other, and its spare.
make_room() { # file, line
    printf '%-1023s\n' "$2" >"$1" && printf '%-1023s\n' '' >"$1.new"
}

# Replaces the line of a file that make_room made.
put_line() { # file, line
    rm -f "$1.old"
    ln "$1" "$1.old" 2>/dev/null
    if printf '%-1023s\n' "$2" 1<>"$1.new" && mv -f "$1.new" "$1"; then
        mv -f "$1.old" "$1.new" 2>/dev/null
        return 0
    fi
    printf '%-1023s\n' "$2" 1<>"$1"
}

put_state() { # line
    put_line "$GUARD/state" "$1"
    # Wakes a poll that waits; an open for both ways never blocks.
    [ ! -p "$GUARD/news" ] || echo s 1<>"$GUARD/news"
}

put_phase() { # line
    put_line "$RECORD/phase" "$1" && to_disk "$RECORD/phase" "$RECORD"
}

# Sets phase, phase_line and why from what survived, and said: what is known of the activation.
load_phase() {
    phase_line=
    [ ! -s "$RECORD/phase" ] || read -r phase_line <"$RECORD/phase"
    phase=${phase_line%% *}
    why=
    said=
    read_fields "$phase_line"
    # The window is not worth a write to disk; its state tells how the activation ended.
    if [ -z "$said" ] && [ -s "$GUARD/state" ]; then
        read -r line <"$GUARD/state"
        case $line in
        "active $nonce "*) read_fields "$line" ;;
        esac
    fi
    [ -n "$said" ] || said=rc=-1
}

read_fields() { # state line
    for field in $1; do
        case $field in
        why=*) why=${field#why=} ;;
        rc=* | failed=* | fault=*) said="$said${said:+ }$field" ;;
        esac
    done
}

# Says when systemd last read its unit files, "" where it doesn't tell.
units_loaded() {
    ! has_systemd || ask_systemd show -p UnitsLoadTimestampMonotonic --value
}

# Starts guard.sh as what survives everything but a power cut. Each step of the way back has a bound of
# its own: its patience, and the programs that were started within it.
launch_guard() { # mode
    if has_systemd; then
        systemd-run --quiet --unit="$UNIT" --description='fleet: activation under a guard' \
            --service-type=exec \
            -p CollectMode=inactive-or-failed -p KillMode=control-group -p KillSignal=SIGKILL \
            -p TimeoutStopSec=$((activate_s * 8 + 420)) -p OOMPolicy=continue -p OOMScoreAdjust=-1000 \
            -p IgnoreOnIsolate=yes -p StandardInput=null -p StandardOutput=null \
            -p ExecStopPost="/bin/sh $GUARD/guard.sh post" \
            /bin/sh "$GUARD/guard.sh" "$1" 9>&-
    else
        setsid /bin/sh "$GUARD/guard.sh" watch "$1" </dev/null >/dev/null 2>&1 9>&- &
        process_started $! && printf '%s %s\n' $! "$started" 1<>"$GUARD/pid"
    fi
}

# Makes the folder of a guard with everything in it. GUARD_SH is the text of guard.sh.
make_guard_folder() { # first state line
    rm -rf "$GUARD"
    mkdir -m 0700 "$GUARD" && printf '%s\n' "$GUARD_SH" >"$GUARD/guard.sh" &&
        mkfifo -m 0600 "$GUARD/wake" "$GUARD/news" "$GUARD/out" &&
        make_room "$GUARD/state" "$1" && : >"$GUARD/activation.log" &&
        printf '%-127s\n' '' >"$GUARD/pid" && printf '%-127s\n' '' >"$GUARD/child" || return 1
    for request in renew commit abort leave; do
        printf '%-127s\n' '' >"$GUARD/$request.new" || return 1
    done
}

# Sets `generation` to the highest one that the profile has.
top_generation() { # profile
    highest=0
    for each in "$1"-*-link; do
        generation_of "$each"
        [ "$generation" -le "$highest" ] || highest=$generation
    done
    generation=$highest
}

# Makes `new` (or generation `to`) the profile's current one.
set_profile() {
    resolve "$profile"
    [ "$target" != "$new" ] || return 0
    if [ "$to" -gt 0 ]; then
        timeout -k 5 300 nix-env -p "$profile" --switch-generation "$to"
    else
        timeout -k 5 300 nix-env -p "$profile" --set "$new"
    fi || return 1
    resolve "$profile"
    [ "$target" = "$new" ] || {
        echo "$profile leads to $target after it was set to $new"
        return 1
    }
}

# Takes the profile back to what was recorded; a generation that was made for `new` goes.
unset_profile() {
    now=$(readlink "$profile" 2>/dev/null) || now=
    [ "$now" != "$link" ] || return 0
    generation_of "$now"
    made=$generation
    if [ -z "$link" ]; then
        rm -f "$profile"
    else
        generation_of "$link"
        [ "$generation" -gt 0 ] &&
            timeout -k 5 120 nix-env -p "$profile" --switch-generation "$generation"
        [ "$(readlink "$profile")" = "$link" ] || write_link "$link" "$profile" || return 1
    fi
    if [ "$made" -gt "$top" ]; then
        made=$profile-$made-link
        resolve "$made"
        [ "$target" != "$new" ] || rm -f "$made"
    fi
    to_disk "${profile%/*}"
}

# Sets menu_now: a word for the files in which the boot loaders that NixOS knows name their default, ""
# where there are none. Each loader's installer writes them last, and replaces them by rename.
read_menu() {
    menu_now=
    for place in /boot /efi /boot/efi; do
        for file in loader/loader.conf loader/default grub/grub.cfg extlinux/extlinux.conf; do
            file=$place/$file
            [ ! -f "$file" ] || menu_now=$menu_now/$(cksum <"$file" | tr ' ' -)
        done
    done
}

# deployed.json: what core/target.c passes in these values holds no quotes and no backslashes.
write_deployed() {
    write_file "$VAR/deployed.json" "$(printf \
        '{"path":"%s","run":"%s","rev":"%s","dirty":%s,"who":"%s","when":"%s","complete":true}' \
        "$new" "$run" "$rev" "$dirty" "$who" "$(date -u +%Y-%m-%dT%H:%M:%SZ)")"
}

# Removes what the guard kept. `line` becomes the last word, which outlives a reboot.
close_record() { # line
    write_file "$VAR/guard.last" "$1"
    rm -f "$RECORD/record"
    rm -rf "$RECORD"
    to_disk "$VAR"
    rm -f "$ROOTS/guard-new" "$ROOTS/guard-old"
}
