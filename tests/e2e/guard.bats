#!/usr/bin/env bats
# The guard on real hosts, without the program: each case ends in the right running system, profile
# and boot default, and nothing is left of the guard. Every test has a host of its own.

load guard_driver

setup_file() {
    export FLEET_TESTBED=/var/tmp/fleet-testbed-guard-$$
    "$BATS_TEST_DIRNAME/../testbed/testbed" up 0
}

teardown_file() {
    "$BATS_TEST_DIRNAME/../testbed/testbed" destroy
}

setup() {
    I=$BATS_TEST_NUMBER
    kind=nspawn
    case $BATS_TEST_DESCRIPTION in *'without systemd'*) kind=light ;; esac
    "$testbed" up 1 --first "$I" --kind $kind
    eval "$("$testbed" env)"
    v0=$TESTBED_SEED
    # NixOS's /bin/sh is bash, Debian's dash: FLEET_GUARD_SHELL=bash runs all of this with the other.
    [ -z "${FLEET_GUARD_SHELL:-}" ] ||
        "$testbed" ssh "$I" ln -sf "$FLEET_GUARD_SHELL" /usr/bin/sh
    nonce=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
}

teardown() {
    if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
        "$testbed" ssh "$I" 'sh -c "cat /run/fleet/guard/state /var/lib/fleet/guard.last; tail -n 20 /run/fleet/guard/activation.log"' || true
    fi
    "$testbed" down "$I"
}

on_host() { "$testbed" ssh "$I" /bin/sh -s; }

# Replaces a program of the old system by a script that may call the true one as $true_one.
wrap_program() { # name, script
    "$testbed" ssh "$I" /bin/sh -s <<SCRIPT
cd $v0/sw/bin && true_one=\$(readlink $1) && rm $1 && cat >$1 <<'TEXT'
#!/bin/sh
$2
TEXT
sed -i "s|true_one|\$true_one|g" $1 && chmod 755 $1
SCRIPT
}

@test "a good version is committed on request, and the record is complete" {
    v1=$(send_system "$I" good v1)
    run guard_start "$I" "$v1"
    [[ $output == *'guard started'*'weak no'*"old $v0"* ]]
    await_state "$I" 'active * rc=0 *' 30
    # Nothing but the running system has changed until then.
    said=$(on_host <<<'readlink -f /nix/var/nix/profiles/system; cat /boot/loader/default')
    [ "$said" = "$v0"$'\n'"$v0" ]
    guard_request "$I" renew
    guard_request "$I" commit
    await_end "$I" 30
    assert_new "$I" "$v1"
    [[ $(last_word "$I") == "committed $nonce rc=0" ]]
    deployed=$(inspect "$I" | value deployed)
    [[ $deployed == *"\"path\":\"$v1\",\"run\":\"run1\",\"rev\":\"abc123\",\"dirty\":false,\"who\":\"me@there 1\""*'"complete":true}' ]]
    [ "$(inspect "$I" | value roots)" = "before-run1 $v0" ]
}

@test "a unit that fails takes the host back" {
    v1=$(send_system "$I" unit-fails v1)
    guard_start "$I" "$v1"
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=4 failed=migrate.service why=activation back_rc=0" ]]
    guard_poll "$I" | grep 'log .*migrate'
}

@test "exit 4 for a unit that had failed before is good, with its code kept" {
    "$testbed" fail-unit "$I"
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active * rc=4 *' 30
    guard_request "$I" commit
    await_end "$I" 30
    assert_new "$I" "$v1"
}

@test "an activation script that fails takes the host back" {
    v1=$(send_system "$I" fail-activate v1)
    guard_start "$I" "$v1"
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=activation '* ]]
}

@test "a version that stops sshd is taken back when nobody renews" {
    v1=$(send_system "$I" breaks-sshd v1)
    guard_start "$I" "$v1" CONFIRM_MS=3000
    sleep 2
    run "$testbed" ssh "$I" true
    [ "$status" -ne 0 ]
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=deadline '* ]]
}

@test "systemd, sshd and nix-daemon restarted in the window don't disturb the guard" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<'systemctl daemon-reexec; systemctl restart sshd; systemctl restart nix-daemon.socket; systemctl try-restart dbus'
    sleep 1
    [[ $(guard_poll "$I" | value alive) == yes ]]
    guard_request "$I" renew
    guard_request "$I" commit
    await_end "$I" 30
    assert_new "$I" "$v1"
}

@test "systemd re-executed in mid-activation still takes a hanging version back" {
    v1=$(send_system "$I" hangs v1)
    guard_start "$I" "$v1" ACTIVATE_MS=4000
    sleep 1
    on_host <<<'systemctl daemon-reexec; systemctl restart sshd'
    await_end "$I" 40
    assert_old "$I"
    [[ $(last_word "$I") == *' why=activate-timeout '* ]]
}

@test "a guard killed with -9 in its window goes back" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<'systemctl kill --kill-who=main -s KILL fleet-guard'
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=killed '* ]]
}

@test "a guard killed with -9 in mid-activation goes back, and the activation dies with it" {
    v1=$(send_system "$I" hangs v1)
    guard_start "$I" "$v1"
    await_state "$I" 'activating *' 30
    sleep 1
    on_host <<<'systemctl kill --kill-who=main -s KILL fleet-guard'
    await_end "$I" 30
    assert_old "$I"
    run on_host <<<"ps ax | grep '[/]activate'"
    [ -z "$output" ]
}

@test "an activation that ignores SIGTERM is ended after its time" {
    v1=$(send_system "$I" hangs v1)
    guard_start "$I" "$v1" ACTIVATE_MS=2000
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=124 why=activate-timeout back_rc=0" ]]
    run on_host <<<"ps ax | grep '[/]activate'"
    [ -z "$output" ]
}

@test "a guard that systemd is told to stop goes back" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<'systemctl stop fleet-guard'
    await_end "$I" 30
    assert_old "$I"
}

@test "the deadline passes when the operator is gone; a renewal moves it" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1" CONFIRM_MS=3000
    await_state "$I" 'active *' 30
    for _ in 1 2 3; do
        sleep 1.5
        run guard_request "$I" renew
        [[ $output == *'request left'* ]]
        [ "$(value deadline_ms <<<"$output")" -gt 2000 ]
    done
    [[ $(guard_poll "$I" | value state) == active* ]]
    await_end "$I" 20
    assert_old "$I"
    [[ $(last_word "$I") == *' why=deadline '* ]]
}

@test "an abort goes back" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" abort
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=abort '* ]]
}

@test "leave, and an abort with leave_on_abort, disarm the guard and commit nothing" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" leave
    await_end "$I" 30
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
    [[ $(last_word "$I") == "inert $nonce rc=0 why=leave" ]]
    v2=$(send_system "$I" good v2)
    guard_start "$I" "$v2" LEAVE=yes
    await_state "$I" 'active *' 30
    guard_request "$I" abort
    await_end "$I" 30
    assert_host "$I" "$v2" "$v0 system-1-link" "$v0"
}

@test "a commit that fails on a full /boot is undone" {
    v1=$(send_system "$I" reboot v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    "$testbed" fill "$I" boot
    guard_request "$I" commit
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == *'why=commit-failed'* ]]
    run on_host <<<'ls /nix/var/nix/profiles | grep -c system-'
    [ "$output" = 1 ]
    guard_poll "$I" | grep 'log .*No space left'
}

@test "a second start is refused while a guard lives" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    run guard_start "$I" "$v1" NONCE=another0another0
    [[ $output == 'guard busy'* ]]
    await_state "$I" 'active *' 30
    run guard_start "$I" "$v1" NONCE=another0another0
    [[ $output == 'guard busy'* ]]
    guard_request "$I" commit
    await_end "$I" 30
    assert_new "$I" "$v1"
}

@test "requests with another nonce, before their time or left over never confirm" {
    v1=$(send_system "$I" hangs v1)
    guard_start "$I" "$v1" ACTIVATE_MS=2000 NONCE=first0first0first
    # Not while the activation runs.
    nonce=first0first0first run guard_request "$I" commit
    [[ $output == *'request refused'* ]]
    on_host <<<'echo first0first0first >/run/fleet/guard/commit'
    await_end "$I" 30
    assert_old "$I"
    on_host <<<'echo first0first0first >/run/fleet/guard/commit; echo first0first0first >/run/fleet/guard/renew'
    v2=$(send_system "$I" good v2)
    guard_start "$I" "$v2" CONFIRM_MS=3000
    await_state "$I" 'active *' 30
    nonce=first0first0first run guard_request "$I" commit
    [[ $output == *'request refused'* ]]
    on_host <<<'echo first0first0first >/run/fleet/guard/commit; echo first0first0first >/run/fleet/guard/renew'
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=deadline '* ]]
}

@test "power cut in mid-activation and in the window: up in the old system, the record closed by repair" {
    for variant in hangs good; do
        v1=$(send_system "$I" $variant v1)
        guard_start "$I" "$v1"
        await_state "$I" 'acti*' 30
        sleep 1
        "$testbed" down "$I"
        "$testbed" start "$I"
        run inspect "$I"
        [[ $output == *'guard_record yes'*'guard_alive no'* ]]
        run guard_start "$I" "$v1"
        [[ $output == 'guard unfinished'* ]]
        run repair "$I"
        [[ $output == *"finished back"*"current $v0"*"profile $v0"* ]]
        assert_old "$I"
    done
}

@test "power cut in mid-commit before the boot default: repair goes back" {
    v1=$(send_system "$I" good v1)
    wrap_program nix-env 'true_one "$@"; case $* in *--set*) sleep 100 ;; esac'
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    sleep 1
    assert_profile=$(on_host <<<'readlink -f /nix/var/nix/profiles/system')
    [ "$assert_profile" = "$v1" ]
    "$testbed" down "$I"
    "$testbed" start "$I"
    run repair "$I"
    [[ $output == *'finished back'* ]]
    assert_old "$I"
}

@test "power cut in mid-commit after the boot default: repair goes forward" {
    v1=$(send_system "$I" good v1)
    on_host <<<"echo 'sleep 100' >>$v1/install-bootloader"
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    sleep 1
    "$testbed" down "$I"
    "$testbed" start "$I"
    on_host <<<"sed -i '\$d' $v1/install-bootloader"
    run repair "$I"
    [[ $output == *'finished forward'*"current $v1"*"profile $v1"* ]]
    assert_new "$I" "$v1"
    [ "$(inspect "$I" | value deployed_complete)" = yes ]
}

@test "a guard killed with -9 in mid-commit goes back" {
    v1=$(send_system "$I" good v1)
    on_host <<<"echo 'sleep 100' >>$v1/install-bootloader"
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_state "$I" 'committing *' 10
    sleep 1
    on_host <<<'systemctl kill --kill-who=main -s KILL fleet-guard'
    await_end "$I" 30
    assert_old "$I"
}

@test "a reboot in the window activates nothing on its way down" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<"sed -i '2i echo \"\$1\" >>/var/tmp/switched' $v0/bin/switch-to-configuration"
    "$testbed" ssh "$I" systemctl poweroff || true
    sleep 3
    "$testbed" down "$I"
    "$testbed" start "$I"
    run on_host <<<'cat /var/tmp/switched'
    [[ $output == *'No such file'* ]]
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=0 why=reboot back_rc=0" ]]
}

@test "/run full after the start: renewed, committed, and read" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1" CONFIRM_MS=8000
    await_state "$I" 'active *' 30
    "$testbed" fill "$I" run
    for _ in 1 2 3; do
        run guard_request "$I" renew
        [[ $output == *'request left'* ]]
        sleep 0.3
        [ "$(guard_poll "$I" | value deadline_ms)" -gt 5000 ]
    done
    guard_request "$I" commit
    await_end "$I" 30
    [[ $(guard_poll "$I" | value state) == "committed $nonce rc=0" ]]
    assert_new "$I" "$v1"
}

@test "a flood of output is capped and does not end the activation" {
    v1=$(send_system "$I" good v1)
    on_host <<<"sed -i '2i head -c 30000000 /dev/zero | tr \"\\\\\\\\000\" x | fold -w 80 >\&2' $v1/activate"
    guard_start "$I" "$v1"
    await_state "$I" 'active * rc=0 *' 30
    size=$(on_host <<<'wc -c </run/fleet/guard/activation.log')
    [ "$size" -gt 900000 ]
    [ "$size" -le 1000000 ]
    guard_request "$I" commit
    await_end "$I" 30
    assert_new "$I" "$v1"
}

@test "a program for another machine and one that needs a reboot are inert" {
    v1=$(send_system "$I" exec-format v1)
    guard_start "$I" "$v1"
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "inert $nonce rc=126 why=exec" ]]
    guard_poll "$I" | grep 'log .*exec format error'
    v2=$(send_system "$I" init-interface v2)
    guard_start "$I" "$v2"
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "inert $nonce rc=100 why=reboot" ]]
}

@test "an empty script that exits 0 is no activation" {
    v1=$(send_system "$I" good v1)
    on_host <<<"printf '#!/bin/sh\n' >$v1/bin/switch-to-configuration"
    guard_start "$I" "$v1"
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=activation '* ]]
}

@test "a failed redeploy never removes the good generation; another one goes back by number" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 30
    # The same again, not confirmed.
    guard_start "$I" "$v1" CONFIRM_MS=1000
    await_end "$I" 30
    assert_new "$I" "$v1"
    # Back to generation 1, by number.
    guard_start "$I" "$v0" TO=1
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 30
    assert_old "$I"
    [ "$(run_script "$I" generations -- PROFILE=/nix/var/nix/profiles/system | grep -c '^gen ')" = 2 ]
}

@test "action test commits nothing; a later failure goes back to the profile's system" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1" ACTION=test
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 30
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
    guard_start "$I" "$v1" CONFIRM_MS=1000
    await_end "$I" 30
    assert_old "$I"
}

@test "committed before activation: a failure stays as it is, and is said" {
    v1=$(send_system "$I" unit-fails v1)
    run run_script "$I" lock record commit_now -- LOCK_ID= PROFILE=/nix/var/nix/profiles/system \
        ACT_RUN=run1 NEW="$v1" ACTIVATE_MS=30000 REV=r WHO=w DIRTY=true TO=0
    [[ $output == *'rc 0'*'generation 2'* ]]
    guard_start "$I" "$v1" ACTION=committed
    await_end "$I" 30
    assert_new "$I" "$v1"
    [[ $(last_word "$I") == "committed $nonce rc=4 failed=migrate.service why=activation" ]]
}

@test "a commit at once that fails leaves profile and boot default as they were" {
    v1=$(send_system "$I" reboot v1)
    "$testbed" fill "$I" boot
    run run_script "$I" lock record commit_now -- LOCK_ID= PROFILE=/nix/var/nix/profiles/system \
        ACT_RUN=run1 NEW="$v1" ACTIVATE_MS=30000 REV=r WHO=w DIRTY=true TO=0
    [[ $output == *'log '*'No space left'* ]]
    [[ $output == *'rc 1'* ]]
    assert_old "$I"
}

@test "a host without a profile goes back to having none" {
    v1=$(send_system "$I" good v1)
    on_host <<<'rm /nix/var/nix/profiles/system /nix/var/nix/profiles/system-1-link'
    wrap_program nix-env 'true_one "$@"; case $* in *--set*) exit 1 ;; esac'
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 30
    run on_host <<<'readlink -f /run/current-system; ls -d /nix/var/nix/profiles/system*'
    [[ $output == "$v0"*'No such file'* ]]
    [[ $(last_word "$I") == *'why=commit-failed'* ]]
}

@test "a switch of somebody else's delays the way back and does not fail it" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<'flock /run/nixos/switch-to-configuration.lock sleep 4 >/dev/null 2>&1 &'
    [ "$(inspect "$I" | value switch_lock)" = yes ]
    guard_request "$I" abort
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=0 why=abort back_rc=0" ]]
}

@test "the lock: one of many gets it, a lapsed one is taken over, a live guard's never" {
    take() { # id, run, lease
        run_script "$I" lock lock_take -- LOCK_ID="$1" LOCK_RUN="$2" LOCK_WHO="$1@there 77" LEASE_MS="$3"
    }
    compose lock lock_take -- LOCK_ID=ID LOCK_RUN=ID LOCK_WHO=w LEASE_MS=60000 >"$BATS_TEST_TMPDIR/take"
    "$testbed" ssh "$I" 'sh -c "cat >/root/take"' <"$BATS_TEST_TMPDIR/take"
    run on_host <<<'for i in $(seq 40); do sed "s/ID='"'ID'"'/ID=i$i/; s/RUN='"'ID'"'/RUN=r$i/" /root/take | sh & done | grep -c "^lock ok"; wait'
    [ "$output" = 1 ]
    holder=$(inspect "$I" | value lock_id)
    run run_script "$I" lock lock_release -- LOCK_ID=wrong
    [[ $output == 'lock held'* ]]
    run run_script "$I" lock lock_release -- LOCK_ID="$holder"
    [[ $output == 'lock released' ]]
    run take a ra 1
    [ "$output" = 'lock ok' ]
    sleep 0.1
    run take b rb 60000
    [[ $output == 'lock_lapsed a ra a@there 77'*'lock ok' ]]
    run take a ra 60000
    [[ $output == 'lock held'*'lock_id b'*'lock_pid 77'* ]]
    run take c rb 60000 # the same run
    [ "$output" = 'lock ok' ]
    v1=$(send_system "$I" good v1)
    run guard_start "$I" "$v1" LOCK_ID=b
    [[ $output == *'guard lock-lost'* ]]
    run guard_start "$I" "$v1" LOCK_ID=c ACT_RUN=rb
    [[ $output == 'guard started'* ]]
    await_state "$I" 'active *' 30
    run take c rb 1
    sleep 0.1
    run take a ra 60000
    [[ $output == 'lock held'*'lock_guard yes'* ]]
    run guard_request "$I" commit LOCK_ID=b
    [[ $output == *'request lock-lost'* ]]
    run guard_request "$I" commit LOCK_ID=c
    [[ $output == *'request left'* ]]
    await_end "$I" 30
    assert_new "$I" "$v1"
    run take a ra 60000
    [ "$output" = 'lock ok' ] || [[ $output == 'lock held'* ]]
}

@test "units: crash loops, globs, and what the activation changed" {
    v1=$(send_system "$I" crash-loop v1)
    guard_start "$I" "$v1"
    sleep 2
    run run_script "$I" units -- GLOBS=$'worker.*\nssh*.service'
    [[ $output == *'unit web.service loaded activating auto-restart '* ]]
    [[ $output == *'unit worker.service loaded active running 0 0 '* ]]
    [[ $output == *'unit sshd.service loaded active running'* ]]
    [[ $output == *'changed web.service'* ]]
}

@test "commands: words, exit status, time-out" {
    run run_script "$I" run -- COMMAND="'sh' '-c' 'echo \"\$1\"; exit 3' x 'a  b'" SECONDS_MAX=5
    [[ $output == *'out a  b'* && $output == *'rc 3'* ]]
    run run_script "$I" run -- COMMAND="'sleep' '10'" SECONDS_MAX=0.5
    [[ $output == *'rc 124'* ]]
}

@test "without systemd: committed, taken back at its deadline, and when the guard is killed with -9" {
    v1=$(send_system "$I" good v1)
    run guard_start "$I" "$v1"
    [[ $output == *'weak yes'* ]]
    await_state "$I" 'active *' 30
    guard_request "$I" renew
    guard_request "$I" commit
    await_end "$I" 30
    assert_new "$I" "$v1"
    v2=$(send_system "$I" good v2)
    guard_start "$I" "$v2" CONFIRM_MS=2000
    await_end "$I" 30
    assert_new "$I" "$v1"
    [[ $(last_word "$I") == *' why=deadline '* ]]
    guard_start "$I" "$v2"
    await_state "$I" 'active *' 30
    on_host <<<'kill -9 $(pgrep -P $(cut -d " " -f 1 /run/fleet/guard/pid))'
    await_end "$I" 30
    assert_new "$I" "$v1"
    [[ $(last_word "$I") == *' why=killed '* ]]
    v3=$(send_system "$I" hangs v3)
    guard_start "$I" "$v3" ACTIVATE_MS=2000
    await_end "$I" 30
    assert_new "$I" "$v1"
    sleep 0.5
    run on_host <<<'ps axf | grep "[g]uard.sh\|[d]d bs="'
    echo "$output"
    [ -z "$output" ]
}
