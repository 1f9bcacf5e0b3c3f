#!/bin/sh
# Follows a guard. Arguments: NONCE, SEEN (the state line already known), OFFSET (into the log, ""
# for none of it), WAIT_MS. Answers when the state differs, 300 ms after new log text, or when the wait is over.
# PASSES is a phase that is no news, as it leads to what is waited for ("" for none): set by the
# scripts before this one, whose answer then tells the outcome too where that is quick.

CHUNK=65536

load_state() {
    state=
    [ ! -s "$GUARD/state" ] || read -r state <"$GUARD/state"
    case $state in
    *" $NONCE" | *" $NONCE "*) ;;
    *) state= ;;
    esac
}

# The log grows in these phases only; asking costs a program.
load_size() {
    size=0
    [ ! -e "$GUARD/activation.log" ] || size=$(wc -c <"$GUARD/activation.log")
}

is_news() {
    [ "$state" != "$SEEN" ] && [ "${state%% *}" != "${PASSES:-none}" ]
}

wait_for_news() {
    # Open before the first look, so that no news is missed in between.
    [ ! -p "$GUARD/news" ] || exec 7<>"$GUARD/news"
    load_state
    load_size
    tick
    began=$now_ms
    while ! is_news && [ $((now_ms - began)) -lt "$WAIT_MS" ] && [ -e "$GUARD/state" ]; do
        nap=0.3
        case $state in
        active*) nap=1 ;;
        esac
        if [ "$size" -gt "${OFFSET:-$size}" ] && [ $((now_ms - began)) -ge 300 ]; then
            break
        fi
        timeout $nap dd bs=64 count=1 <&7 >/dev/null 2>&1
        case $? in
        0 | 124) ;;
        *) sleep 0.3 ;;
        esac
        load_state
        case $state in
        active*) ;;
        *) load_size ;;
        esac
        tick
    done
}

# Prints whole lines only, unless a line is longer than a chunk or the guard is done with it.
say_log() {
    load_size
    length=$((size - OFFSET))
    [ $length -gt 0 ] || length=0
    [ $length -le $CHUNK ] || length=$CHUNK
    if [ $length -gt 0 ]; then
        partial=$(log_part $length | tail -n 1 | wc -c)
        [ -n "$(log_part $length | tail -c 1)" ] || partial=0
        case $state in
        activating* | committing* | reverting\ *) ;;
        *) [ $((OFFSET + length)) -lt "$size" ] || partial=0 ;;
        esac
        [ "$partial" -lt $length ] || [ $length -lt $CHUNK ] || partial=0
        length=$((length - partial))
    fi
    if [ $length -gt 0 ]; then
        log_part $length | sed 's/^/log /'
        echo
    fi
    say log_offset $((OFFSET + length))
}

log_part() { # bytes
    tail -c +$((OFFSET + 1)) "$GUARD/activation.log" | head -c "$1"
}

say_deadline() {
    left=-1
    case $state in
    active*deadline=*)
        deadline=${state##*deadline=}
        deadline=${deadline%% *}
        tick
        left=$((${deadline%.*} * 1000 + ${deadline#*.} * 100 - now_ms))
        [ $left -ge 0 ] || left=0
        ;;
    esac
    say deadline_ms $left
}

wait_for_news
alive=yes
if ! guard_alive; then
    # Its last word may have come since the state was read.
    alive=no
    load_state
fi
say state "$state"
[ -z "$OFFSET" ] || say_log
say_deadline
say alive $alive
if [ -e "$RECORD/record" ]; then
    say record yes
else
    say record no
    resolve /run/current-system
    say current "$target"
    resolve "${PROFILE:-/nix/var/nix/profiles/system}"
    say profile "$target"
    last=
    [ ! -s "$VAR/guard.last" ] || read -r last <"$VAR/guard.last"
    say last "$last"
fi
