#!/usr/bin/env bats
# The guard, as in guard.bats, cut short: killed, stopped, its host restarted or without power, at
# each point. Every test has a host of its own.

load guard_driver

setup_file() { begin_guards; }
teardown_file() { "$testbed" destroy; }
setup() { begin_guard; }
teardown() { end_guard; }

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

@test "a guard that systemd is told to stop goes back" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<'systemctl stop fleet-guard'
    await_end "$I" 30
    assert_old "$I"
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
        [[ $(last_word "$I") == *' why=power-cut '* ]]
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

@test "a guard killed with its way back in mid-commit: repair goes forward with a commit that can be finished only" {
    v1=$(send_system "$I" good v1)
    on_host <<<'mkdir -p /var/tmp/slow'
    wrap_program nix-env 'case $* in *--set*) [ ! -e /var/tmp/slow/set ] || sleep 100 ;; *--switch*) [ ! -e /var/tmp/slow/switch ] || sleep 100 ;; esac; true_one "$@"'
    # Before the profile was set.
    on_host <<<': >/var/tmp/slow/set'
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_state "$I" 'committing *' 20
    kill_wholly
    on_host <<<'rm /var/tmp/slow/set'
    run repair "$I"
    [[ $output == *'finished back'* ]]
    assert_old "$I"
    # On its way back, as the commit had failed.
    on_host <<<": >/var/tmp/slow/switch; cp $v1/install-bootloader /var/tmp/whole; sed -i '2i exit 1' $v1/install-bootloader"
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_state "$I" 'reverting * why=commit-failed*' 20
    kill_wholly
    on_host <<<"rm /var/tmp/slow/switch; cp /var/tmp/whole $v1/install-bootloader"
    run repair "$I"
    [[ $output == *'finished back'* ]]
    assert_old "$I"
    # Where the boot default can't be written after all.
    on_host <<<"echo 'sleep 100' >>$v1/install-bootloader"
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_state "$I" 'committing *' 20
    on_host <<<'until pgrep -f install-bootloader >/dev/null; do sleep 0.05; done'
    kill_wholly
    on_host <<<"cp /var/tmp/whole $v1/install-bootloader; sed -i '2i exit 1' $v1/install-bootloader"
    run repair "$I"
    [[ $output == *'finished back'* ]]
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
    guard_start "$I" "$v1"
    state=$(await_state "$I" 'active *' 30)
    "$testbed" fill "$I" run
    for _ in 1 2 3; do
        run guard_request "$I" renew
        [[ $output == *'request left'* ]]
        # It has seen that once its deadline has moved.
        state=$(await_state "$I" "active *deadline=!(${state##*deadline=})" 30)
    done
    guard_request "$I" commit
    await_end "$I" 30
    [[ $(guard_poll "$I" | value state) == "committed $nonce rc=0" ]]
    assert_new "$I" "$v1"
}

@test "without systemd: committed, taken back at its deadline, and when the guard is killed with -9" {
    v1=$(send_system "$I" good v1)
    run_script "$I" lock lock_take -- LOCK_ID=ours LOCK_RUN=run1 LOCK_WHO=w LEASE_MS=60000 RENEW=no
    run guard_start "$I" "$v1" LOCK_ID=ours
    [[ $output == *'weak yes'* ]]
    await_state "$I" 'active *' 30
    # The guard has not kept the lock's file open: who renews needs it.
    [[ $(guard_request "$I" renew LOCK_ID=ours) == *'request left'* ]]
    guard_request "$I" commit LOCK_ID=ours
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
    # There is no control group to take the activation along.
    guard_start "$I" "$v3"
    on_host <<<'until pgrep -f "[/]activate" >/dev/null; do sleep 0.05; done; kill -9 $(pgrep -P $(cut -d " " -f 1 /run/fleet/guard/pid))'
    await_end "$I" 30
    assert_new "$I" "$v1"
    run on_host <<<"ps ax | grep '[/]activate'"
    [ -z "$output" ]
    guard_start "$I" "$v3" ACTIVATE_MS=2000
    await_end "$I" 30
    assert_new "$I" "$v1"
    sleep 0.5
    run on_host <<<'ps axf | grep "[g]uard.sh\|[d]d bs="'
    echo "$output"
    [ -z "$output" ]
    # A process that has got the number of one that is gone is not taken for it.
    on_host <<<'echo "1 12345" >/run/fleet/guard/pid'
    [ "$(inspect "$I" | value guard_alive)" = no ]
}
