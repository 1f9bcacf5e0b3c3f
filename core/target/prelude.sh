#!/bin/sh
# The beginning of every script for a target: surroundings, and the words the others are made of.
#
# core/target.c puts this before each script; UPPER-CASE variables are its arguments. Nothing is
# used at a fixed path but /bin/sh: a unit's PATH may hold systemd's programs alone, a login's
# nothing of Nix. Scripts answer on stdout with lines "key value". The guard needs no HOME.
set -u
LC_ALL=C
export LC_ALL
umask 022
RUN=/run/fleet
GUARD=$RUN/guard
VAR=/var/lib/fleet
RECORD=$VAR/guard
ROOTS=/nix/var/nix/gcroots/fleet
UNIT=fleet-guard.service

# Where programs are looked for; `first` is a system whose programs come before all others.
set_path() { # first
    PATH=${1:+$1/sw/bin:}/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin
    PATH=$PATH:${HOME:-/root}/.nix-profile/bin:/usr/bin:/bin:/usr/sbin:/sbin
    export PATH
}
login_path=${PATH:-}
set_path ''
PATH=$PATH${login_path:+:$login_path}

say() { # key, value
    printf '%s %s\n' "$1" "$2"
}

fail() { # message, exit status
    printf '%s\n' "$1" >&2
    exit "${2:-1}"
}

# Sets now_ms: the milliseconds since this boot. Builtins only, it is called in every turn of a wait.
tick() {
    read -r now_ms _ </proc/uptime
    now_ms=${now_ms%.*}${now_ms#*.}0
    while :; do
        case $now_ms in
        0?*) now_ms=${now_ms#0} ;;
        *) break ;;
        esac
    done
}

# Sets boot_id.
read_boot_id() {
    boot_id=
    read -r boot_id </proc/sys/kernel/random/boot_id
}

# Sets `target` to what a link resolves to, "" where it leads nowhere.
resolve() { # link
    target=$(readlink -f "$1" 2>/dev/null) || target=
    [ -e "$target" ] || target=
}

# Sets `generation` to the N of a profile's link "NAME-N-link", 0 where it isn't one.
generation_of() { # link
    generation=${1%-link}
    generation=${generation##*-}
    case $1:$generation in
    *-link:*[!0-9]* | *-link:) generation=0 ;;
    *-link:*) ;;
    *) generation=0 ;;
    esac
}

# Replaces a file's text by rename, on disk before it returns.
write_file() { # file, text
    printf '%s\n' "$2" >"$1.tmp" && mv -f "$1.tmp" "$1" && to_disk "$1" "${1%/*}"
}

to_disk() { # files
    sync "$@" 2>/dev/null || sync
}

# Points a link at something in one step. (-T: a link that is there leads to a folder, mostly in the
# store, and is to be replaced, not moved into.)
write_link() { # target, link
    rm -f "$2.tmp" && ln -s "$1" "$2.tmp" && mv -fT "$2.tmp" "$2"
}

has_systemd() {
    [ -d /run/systemd/system ]
}

# systemctl, which may be away for a moment while systemd re-executes itself.
ask_systemd() {
    timeout 10 systemctl --no-pager "$@" 2>/dev/null
}

# Prints the failed units, and those that wait for a restart after a failure, one a line.
failed_units() {
    has_systemd || return 0
    listed=$(ask_systemd list-units --all --plain --no-legend --full \
        --state=failed,auto-restart) || return 1
    printf '%s\n' "$listed" | while read -r unit _; do
        case $unit in
        '' | "$UNIT") ;;
        *) printf '%s\n' "$unit" ;;
        esac
    done
}

# Prints the services that are active or on their way there, in blanks.
active_services() {
    listed=$(ask_systemd list-units --all --plain --no-legend --full --type=service \
        --state=active,activating,reloading) || return 1
    printf ' '
    printf '%s\n' "$listed" | while read -r unit _; do
        [ -z "$unit" ] || printf '%s ' "$unit"
    done
}

# True while a guard may still act on this host. Where systemd does not answer, a record that is
# left counts as one.
guard_alive() {
    if has_systemd; then
        case $(ask_systemd is-active "$UNIT") in
        inactive | failed | unknown) return 1 ;;
        '') [ -e "$RECORD/record" ] ;;
        *) return 0 ;;
        esac
    else
        process_lives "$GUARD/pid"
    fi
}

# Sets `started` to when a process began (field 22 of proc(5) stat), "" where there is none.
process_started() { # pid
    started=
    [ -r "/proc/$1/stat" ] && read -r started <"/proc/$1/stat" 2>/dev/null || return 1
    # The name stands in brackets and may hold blanks; 19 words follow before the start time.
    started=${started##*) }
    # shellcheck disable=SC2086
    set -- $started
    shift 19
    started=$1
}

# True if the process noted as "PID STARTED" in a file is that very process, still there.
process_lives() { # file
    [ -s "$1" ] && read -r noted_pid noted_start _ <"$1" && [ -n "$noted_pid" ] &&
        process_started "$noted_pid" && [ "$started" = "$noted_start" ]
}
