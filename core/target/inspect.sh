#!/bin/sh
# What is true of this host, in one round trip. Arguments: PROFILE, DESIRED (a path or "").
# The keys are listed at target_inspect in core/target.h.

inspect_system() {
    resolve /run/current-system
    say current "$target"
    resolve /run/booted-system
    booted=$target
    say booted "$booted"
    resolve "$PROFILE"
    say profile "$target"
    link=$(readlink "$PROFILE" 2>/dev/null)
    say profile_link "$link"
    generation_of "$link"
    say generation "$generation"
    needed=no
    if [ -n "$booted" ] && [ -n "$target" ] && [ "$booted" != "$target" ]; then
        for part in kernel initrd kernel-modules; do
            # shellcheck disable=SC3013
            if [ -e "$booted/$part" ] || [ -e "$target/$part" ]; then
                [ "$booted/$part" -ef "$target/$part" ] || needed=yes
            fi
        done
    fi
    say reboot_needed "$needed"
}

inspect_machine() {
    read_boot_id
    say boot_id "$boot_id"
    machine_id=
    [ ! -r /etc/machine-id ] || read -r machine_id </etc/machine-id
    say machine_id "$machine_id"
    tick
    say uptime_ms "$now_ms"
    say uid "$(id -u)"
    read -r kernel </proc/sys/kernel/osrelease
    say kernel "$kernel"
    nix_store=$(command -v nix-store) || nix_store=
    say nix_store "$nix_store"
    version=
    if [ -n "$nix_store" ]; then
        version=$(nix-store --version 2>/dev/null)
        say nix_version "${version##* }"
        if [ -n "$DESIRED" ]; then
            if [ -e "$DESIRED" ] && nix-store --check-validity "$DESIRED" 2>/dev/null; then
                say valid yes
            else
                say valid no
            fi
        fi
    fi
}

inspect_units() {
    if has_systemd; then
        say systemd yes
        say system_state "$(ask_systemd is-system-running)"
    else
        say systemd no
        say system_state ''
    fi
    failed_units | while read -r unit; do
        say failed "$unit"
    done
}

# Not by trying the lock: for that moment somebody else's switch would be refused.
switch_is_busy() {
    if has_systemd; then
        case $(ask_systemd is-active nixos-rebuild-switch-to-configuration.service) in
        active | activating | deactivating | reloading) return 0 ;;
        esac
    fi
    [ -e /run/nixos/switch-to-configuration.lock ] || return 1
    # shellcheck disable=SC2046
    set -- $(stat -L -c '%d %i' /run/nixos/switch-to-configuration.lock)
    [ $# -eq 2 ] || return 1
    # MAJOR:MINOR:INODE, the device's numbers in hexadecimal, as the kernel packs them into one.
    held=$(printf '%02x:%02x:%s' $((($1 >> 8) & 0xfff)) $((($1 & 0xff) | (($1 >> 12) & 0xfff00))) "$2")
    while read -r locked; do
        case $locked in
        *FLOCK*" $held 0 EOF") return 0 ;;
        esac
    done </proc/locks
    return 1
}

inspect_fleet() {
    state=
    [ ! -s "$GUARD/state" ] || read -r state <"$GUARD/state"
    say guard "$state"
    if [ -e "$RECORD/record" ]; then say guard_record yes; else say guard_record no; fi
    phase=
    [ ! -s "$RECORD/phase" ] || read -r phase <"$RECORD/phase"
    say guard_phase "$phase"
    if [ -s "$RECORD/record" ]; then
        while read -r key value; do
            case $key in
            run) say guard_run "$value" ;;
            before) say guard_before "$value" ;;
            esac
        done <"$RECORD/record"
    fi
    if guard_alive; then say guard_alive yes; else say guard_alive no; fi
    if switch_is_busy; then say switch_lock yes; else say switch_lock no; fi
    if [ -e "$RUN/lock" ]; then
        # An ordinary account can only look; what it reads may then be a moment old.
        [ ! -w "$RUN/lock" ] || lock_enter
        lock_load
        lock_leave
        [ -z "$lock_id" ] || lock_say
    fi
    deployed=
    [ ! -s "$VAR/deployed.json" ] || read -r deployed <"$VAR/deployed.json"
    say deployed "$deployed"
    case $deployed in
    *'"complete":true'*) say deployed_complete yes ;;
    *) say deployed_complete no ;;
    esac
    for root in "$ROOTS"/*; do
        [ ! -L "$root" ] || say roots "${root##*/} $(readlink "$root")"
    done
}

inspect_space() { # key, folder
    [ -d "$2" ] || return 0
    df -Pk "$2" 2>/dev/null | {
        read -r _
        read -r _ _ _ free _
        say "$1" $((${free:-0} * 1024))
    }
}

inspect_system
inspect_machine
inspect_units
inspect_fleet
inspect_space free_nix /nix/store
inspect_space free_run /run
inspect_space free_boot /boot
