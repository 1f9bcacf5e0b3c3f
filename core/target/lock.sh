#!/bin/sh
# Who holds this host. Part of the scripts that read or change it.
#
# $RUN/lock holds "key value" lines: id, run, who, since (RFC 3339), boot, until (ms of uptime),
# sshd (which process serves the holder's connection).
# Every look and every change happens under flock on $RUN/lock.flock, which is never removed
# (read, remove, mkdir let two operators hold). The file is made with room, as /run may fill up.

lock_enter() {
    [ "$(id -u)" = 0 ] ||
        fail "the account is not root there: set \`sudo: true\` for the host, or \`user\` to one that may"
    mkdir -p "$RUN" || fail "$RUN can't be made: is /run full or read-only?"
    command -v flock >/dev/null ||
        fail "flock (util-linux) was not found on this host, in $PATH: fleet needs it"
    # For its owner alone: whoever may read a file may hold its flock, and keep us away with it.
    umask 077
    exec 9>>"$RUN/lock.flock"
    umask 022
    flock -w 20 9 || fail "$RUN/lock.flock was held for 20 s by another process" 75
}

lock_leave() {
    exec 9>&-
}

# Sets lock_id ("" when free), lock_run, lock_who, lock_since, lock_left_ms (negative: lapsed).
lock_load() {
    lock_id='' lock_run='' lock_who='' lock_since='' lock_boot='' lock_until=0 lock_sshd=''
    if [ -s "$RUN/lock" ]; then
        while read -r key value; do
            case $key in
            id) lock_id=$value ;;
            run) lock_run=$value ;;
            who) lock_who=$value ;;
            since) lock_since=$value ;;
            boot) lock_boot=$value ;;
            until) lock_until=$value ;;
            sshd) lock_sshd=$value ;;
            esac
        done <"$RUN/lock"
    fi
    case $lock_until in
    '' | *[!0-9]*) lock_until=0 ;;
    esac
    tick
    read_boot_id
    lock_left_ms=$((lock_until - now_ms))
    [ "$lock_boot" = "$boot_id" ] || lock_left_ms=-1
}

lock_say() {
    say lock_id "$lock_id"
    say lock_run "$lock_run"
    say lock_who "$lock_who"
    say lock_since "$lock_since"
    say lock_expires_s $((lock_left_ms / 1000))
    case ${lock_who##* } in
    '' | *[!0-9]*) ;;
    *) say lock_pid "${lock_who##* }" ;;
    esac
}

# Writes the lock in place: no room is asked for once the file is there.
lock_write() { # id, run, who, since, lease ms
    tick
    read_boot_id
    find_sshd
    text=$(printf 'id %s\nrun %s\nwho %s\nsince %s\nboot %s\nuntil %s\nsshd %s\n' \
        "$1" "$2" "$3" "$4" "$boot_id" $((now_ms + $5)) "$sshd")
    printf '%-1023s\n' "$text" 1<>"$RUN/lock" || fail "$RUN/lock can't be written: is /run full?"
}

# Sets sshd: "PID STARTED" of the sshd that serves this connection, "" where none does.
find_sshd() {
    sshd=''
    above=$$
    while [ "${above:-0}" -gt 1 ] && read -r name <"/proc/$above/comm"; do
        case $name in
        sshd*)
            process_started "$above" && sshd="$above $started"
            return
            ;;
        esac
        read -r line <"/proc/$above/stat" || return
        line=${line##*) ? }
        above=${line%% *}
    done 2>/dev/null
}

# Ends the connection over which this holder came before. Its sshd may not know yet that it is lost,
# and what it runs keeps Nix's locks, so that a copy over the new one would wait.
end_former_sshd() {
    find_sshd
    [ -n "$lock_sshd" ] && [ "$lock_boot" = "$boot_id" ] && [ "$lock_sshd" != "$sshd" ] || return 0
    process_started "${lock_sshd%% *}" && [ "$started" = "${lock_sshd##* }" ] || return 0
    kill "${lock_sshd%% *}" 2>/dev/null || return 0
}

# True if `id` holds the host. A lease that lapsed still holds as long as nobody else took it.
lock_is_mine() { # id
    lock_load
    [ "$lock_id" = "$1" ]
}
