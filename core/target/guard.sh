#!/bin/sh
# The guard: activates a system, waits for word from outside, commits it or goes back.
#
#   guard.sh main    the unit's main process: activation, window, commit
#   guard.sh post    the unit's ExecStopPost=, however main ended: the way back, and the end of all
#   guard.sh repair  main, for a record whose guard is gone
#   guard.sh watch MODE   where there is no systemd: runs MODE and then post
#
# Main never goes back by itself: it says why and exits, systemd kills whatever the activation left
# in the unit's control group, and then post acts. So there is one way back, and kill -9 takes it
# too. A phase that post relies on is on disk before its act begins. Requests are ignored in every
# phase but `active`. Text after the last function is one line, as dash reads a script piece by piece.

LOG_MAX=1000000

# Reads all that comes and keeps what fits: output must neither fill /run nor stop or kill its
# writer. dd writes what it has read at once; it counts short reads as whole blocks, so it is asked
# again until nothing more comes.
keep_log() {
    size=$(wc -c <"$GUARD/activation.log") || size=$LOG_MAX
    while [ $((LOG_MAX - size)) -ge 4096 ]; do
        dd bs=4096 count=$(((LOG_MAX - size) / 4096)) >>"$GUARD/activation.log" 2>/dev/null || break
        was=$size
        size=$(wc -c <"$GUARD/activation.log") || break
        [ "$size" -gt "$was" ] || return 0
    done
    exec cat >/dev/null
}

note() { # a line for the operator, among the activation's output
    printf 'fleet: %s\n' "$1" >>"$GUARD/activation.log"
}

# Runs a program as a child of its own session, its output kept, and ends it and its process group
# after some seconds. Sets rc and elapsed_ms.
run_logged() { # seconds, command
    seconds=$1
    shift
    # Both ends are open before either side runs, so neither waits for the other.
    exec 7<>"$GUARD/out"
    exec 4<"$GUARD/out"
    exec 5>"$GUARD/out"
    exec 7>&-
    (
        # By exec: around a function a shell would keep copies of what it closes, and so our end.
        exec <&4 4<&- 5>&- 6>&-
        keep_log
    ) &
    keeper=$!
    tick
    began_ms=$now_ms
    (
        exec >&5 2>&1 4<&- 5>&- 6>&-
        echo 0 >/proc/self/oom_score_adj
        exec setsid timeout -k 5 "$seconds" "$@"
    ) &
    child=$!
    exec 4<&- 5>&-
    process_started $child && printf '%-127s\n' "$child $started" 1<>"$GUARD/child"
    wait $child
    rc=$?
    # timeout(1) is content when its own child has gone; what ignored SIGTERM further down is not.
    [ $rc -lt 124 ] || kill -KILL "-$child" 2>/dev/null
    tick
    elapsed_ms=$((now_ms - began_ms))
    # Its last words are still on their way; what lives on with our pipe is not waited for.
    turn=0
    while [ $turn -lt 15 ] && kill -0 $keeper 2>/dev/null; do
        sleep 0.02
        turn=$((turn + 1))
    done
}

# True if a program could be started on this machine. A shell would run what execve(2) refuses as a
# script, and find an empty file good.
can_run() { # program
    [ -x "$1" ] || return 1
    theirs=$(head -c 20 "$1" | od -An -v -tx1 | tr -d ' \n')
    case $theirs in
    2321*) return 0 ;;
    7f454c46*) ;;
    *) return 1 ;;
    esac
    ours=$(head -c 20 /proc/self/exe | od -An -v -tx1 | tr -d ' \n')
    # Class and byte order, then the machine.
    [ "$(echo "$theirs" | cut -c9-12,37-40)" = "$(echo "$ours" | cut -c9-12,37-40)" ]
}

switch_to() { # system, action, seconds
    LOCALE_ARCHIVE=/run/current-system/sw/lib/locale/locale-archive
    NIXOS_INSTALL_BOOTLOADER=0
    export LOCALE_ARCHIVE NIXOS_INSTALL_BOOTLOADER
    run_logged "$3" "$1/bin/switch-to-configuration" "$2"
}

# Sets fresh: the units that fail now and did not before, with commas. False if nobody knows.
find_fresh_failures() {
    fresh=
    for turn in 1 2 3; do
        now_failed=$(failed_units) && break
        [ $turn -lt 3 ] || return 1
        sleep 2
    done
    for unit in $now_failed; do
        case " $before " in
        *" $unit "*) ;;
        *) fresh=$fresh${fresh:+,}$unit ;;
        esac
    done
    fresh=$(printf '%.400s' "$fresh")
}

# Sets verdict (good, failed, inert, back) and why, from rc. failed: it went wrong, and what runs may be
# left as it is if somebody who can still get in says so.
judge() {
    verdict=back
    why=activation
    known=yes
    find_fresh_failures || known=no
    resolve /run/current-system
    case $rc in
    0) verdict=good ;;
    # Old failures may hide that systemd refused to reload.
    4) [ $known = no ] || [ -n "$fresh" ] || reload_was_refused || verdict=good ;;
    100) verdict=inert ;;
    esac
    if [ "$elapsed_ms" -ge $((activate_s * 1000)) ] && [ "$rc" -ge 124 ]; then
        why=activate-timeout
    elif [ $verdict = good ] && [ "$target" != "$new" ]; then
        note "the activation ended well, but the running system is $target"
        verdict=back
    fi
    [ $verdict != back ] || ! may_stay || verdict=failed
}

# True if the policy has a version that fails left, and the new system is what runs. What the activation
# has left running ends before that is looked at, so that nothing changes behind the window.
may_stay() {
    [ "$leave" = yes ] && [ "$action" != committed ] || return 1
    if ! end_leftovers; then
        note "what the activation has left running could not be ended, so it goes back"
        return 1
    fi
    resolve /run/current-system
    [ "$target" = "$new" ]
}

# Kills all that runs in this unit but main and the keeper of its log, which may still be reading. (Without
# systemd nobody knows more of them than their process group, which run_logged ends.)
end_leftovers() {
    has_systemd || return 0
    find_processes || return 1
    turn=0
    while [ $turn -lt 50 ]; do
        others=no
        while read -r pid; do
            is_ours || ! kill -KILL "$pid" 2>/dev/null || others=yes
        done <"$processes"
        [ $others = yes ] || return 0
        sleep 0.1
        turn=$((turn + 1))
    done
    return 1
}

# True if pid is main, the keeper or the program that the keeper runs. (0: none of this container's.)
is_ours() {
    case $pid in
    "$$" | "$keeper" | 0) return 0 ;;
    esac
    { read -r parent <"/proc/$pid/stat"; } 2>/dev/null || return 1
    # Behind the name, which may hold blanks and brackets, stand the state and the parent.
    parent=${parent##*) }
    parent=${parent#* }
    [ "${parent%% *}" = "$keeper" ]
}

# Sets processes: the file of the kernel's that lists those of this unit.
find_processes() {
    while IFS=: read -r number kind group; do
        case $number:$kind in
        0:) processes=/sys/fs/cgroup$group/cgroup.procs ;;
        *:name=systemd) processes=/sys/fs/cgroup/systemd$group/cgroup.procs ;;
        *) continue ;;
        esac
        case $group in
        */"$UNIT") [ ! -r "$processes" ] || return 0 ;;
        esac
    done </proc/self/cgroup
    return 1
}

# The whole of main. It exits 0 when nothing is left to be done but to clean up.
guard_main() {
    load_phase
    [ "$phase" = prepared ] || exit 1
    if ! put_phase "activating $nonce"; then
        put_state "inert $nonce rc=-1 why=record"
        exit 1
    fi
    put_state "activating $nonce"
    if ! can_run "$new/bin/switch-to-configuration"; then
        note "$new/bin/switch-to-configuration can't be run here: exec format error"
        put_phase "inert $nonce rc=126 why=exec"
        exit 0
    fi
    switch_to "$new" test "$activate_s"
    judge
    said="rc=$rc${fresh:+ failed=$fresh}"
    if [ "$action" = committed ]; then
        [ $verdict != inert ] || why=reboot
        [ $verdict != good ] || why=
        case $verdict in
        inert) put_phase "inert $nonce $said why=reboot" ;;
        *) put_phase "committed $nonce $said${why:+ why=$why}$(what_runs)" ;;
        esac
        exit 0
    fi
    case $verdict in
    good) guard_window yes ;;
    failed)
        said="$said fault=$why"
        guard_window no
        ;;
    inert) put_phase "inert $nonce $said why=reboot" ;;
    back) go_back "$why" reverting ;;
    esac
    exit 0
}

# For a host that is committed already: which system runs, if that isn't the new one.
what_runs() {
    resolve /run/current-system
    [ "$target" = "$new" ] || printf ' current=%s' "$target"
}

# Says that main has failed, on disk, and leaves the rest to post. A commit that had begun stays one
# on disk, as profile and boot default have to be looked at.
go_back() { # why, phase on disk
    put_phase "$2 $nonce $said why=$1"
    put_state "reverting $nonce $said why=$1"
    exit 1
}

say_active() {
    put_state "active $nonce $said deadline=$((deadline_ms / 1000)).$((deadline_ms % 1000 / 100))"
}

asked() { # request: true if it lies there with our nonce
    [ -e "$GUARD/$1" ] || return 1
    word=
    read -r word _ <"$GUARD/$1"
    [ "$word" = "$nonce" ]
}

# Waits for a request or for some time to pass. Builtins and two short programs a turn; where those
# fail at once, a plain sleep keeps the loop from spinning.
wait_for_word() {
    left=$(((deadline_ms - now_ms) / 1000))
    [ $left -le 2 ] || left=2
    [ $left -ge 1 ] || left=1
    timeout $left dd bs=64 count=1 <&6 >/dev/null 2>&1
    case $? in
    0 | 124) ;;
    *) sleep 0.3 ;;
    esac
}

# The window: the new system runs, and stays only if somebody who reached it says so. One whose activation
# failed is never committed: it may be left.
guard_window() { # may it be committed (yes, no)
    may_commit=$1
    exec 6<>"$GUARD/wake"
    # What lies there came before the activation ended, so it proves nothing.
    mv -f "$GUARD/renew" "$GUARD/renew.new" 2>/dev/null
    rm -f "$GUARD/commit"
    tick
    deadline_ms=$((now_ms + confirm_ms))
    say_active
    while :; do
        ! asked abort || go_back abort reverting
        ! asked leave || leave_it
        [ "$may_commit" = no ] || ! asked commit || guard_commit
        tick
        if asked renew; then
            mv -f "$GUARD/renew" "$GUARD/renew.new"
            deadline_ms=$((now_ms + confirm_ms))
            say_active
        fi
        [ "$now_ms" -lt $deadline_ms ] || go_back deadline reverting
        wait_for_word
    done
}

# The new system stays as it runs, neither committed nor taken back.
leave_it() {
    put_phase "inert $nonce $said why=leave"
    exit 0
}

# Makes the proven system the profile's and the boot default. Never returns.
guard_commit() {
    put_phase "committing $nonce $said" || go_back commit-failed committing
    put_state "committing $nonce $said"
    commit_steps || commit_failed
    put_phase "committed $nonce $said" || go_back commit-failed committing
    exit 0
}

# By the policy the proven system may run on, once profile and boot default are the old ones again.
commit_failed() {
    back_rc=0 booted_rc=0
    if [ "$leave" = yes ] && undo_commit; then
        resolve /run/current-system
        if [ "$target" = "$new" ]; then
            said="$said fault=commit-failed"
            leave_it
        fi
    fi
    go_back commit-failed committing
}

commit_steps() {
    resolve /run/current-system
    if [ "$target" != "$new" ]; then
        note "the running system is $target by now, not $new: not committed"
        return 1
    fi
    [ "$action" != test ] || return 0
    if ! set_profile >"$RECORD/words" 2>&1; then
        head -c 4000 "$RECORD/words" >>"$GUARD/activation.log"
        return 1
    fi
    to_disk "${profile%/*}"
    switch_to "$new" boot "$activate_s"
    if [ "$rc" -ne 0 ]; then
        note "$new/bin/switch-to-configuration boot failed (exit status $rc)"
        return 1
    fi
}

# What is done on both ways out of post.
finish() { # last state line
    close_record "$1"
    put_state "$1"
    exit 0
}

guard_post() {
    load_phase
    read_boot_id
    case $phase in
    prepared)
        finish "inert $nonce rc=-1 why=killed"
        ;;
    inert)
        finish "$phase_line"
        ;;
    committed)
        keep_commit
        finish "$phase_line"
        ;;
    esac
    if [ "$action" = committed ]; then
        finish "committed $nonce $said why=killed$(what_runs)"
    fi
    [ -n "$why" ] || why=killed
    [ "$boot" = "$boot_id" ] || why=power-cut
    end_children
    way_back
}

# A commit on disk is the truth: its record is written by whoever comes next.
keep_commit() {
    [ "$action" = switch ] || return 0
    write_deployed
    rm -f "$ROOTS/before-$run"
    mv -fT "$ROOTS/guard-old" "$ROOTS/before-$run" 2>/dev/null
}

# Where no control group does it, the activation's session is ended here.
end_children() {
    ! has_systemd && process_lives "$GUARD/child" && kill -KILL "-$noted_pid" 2>/dev/null
}

# A record without a guard. Forward only where a commit had begun and had not failed, and the host
# runs the new system still or booted it; else post goes back.
guard_repair() {
    load_phase
    case $phase:$why in
    committing: | committing:reboot) ;;
    *) exit 0 ;;
    esac
    resolve "$profile"
    profile_target=$target
    resolve /run/current-system
    if [ "$target" = "$new" ] && [ "$profile_target" = "$new" ]; then
        switch_to "$new" boot "$activate_s"
        [ "$rc" -ne 0 ] || put_phase "committed $nonce $said why=repaired"
    fi
    exit 0
}

# The parent that a guard without systemd has; it outlives main, not its own kill -9.
guard_watch() { # mode
    /bin/sh "$GUARD/guard.sh" "$1"
    exec /bin/sh "$GUARD/guard.sh" post
}

guard() { # mode, mode of watch
    record_load || exit 1
    case $1 in
    main) guard_main ;;
    repair) guard_repair ;;
    post) guard_post ;;
    watch) guard_watch "$2" ;;
    esac
}
guard "$@"; exit
