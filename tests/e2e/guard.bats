#!/usr/bin/env bats
# The guard on real hosts, without the program: each case ends in the right running system, profile
# and boot default, and nothing is left of the guard. Every test has a host of its own. Here: what
# becomes of an activation, good or bad. guard_cut.bats cuts it short, guard_commit.bats is about
# the commit, the profile and the lock.

load guard_driver

setup_file() { begin_guards; }
teardown_file() { "$testbed" destroy; }
setup() { begin_guard; }
teardown() { end_guard; }

@test "a good version is committed on request, and the record is complete" {
    v1=$(send_system "$I" good v1)
    run guard_start "$I" "$v1"
    [[ $output == *'guard started'*'weak no'*"old $v0"* ]]
    await_state "$I" 'active * rc=0 *' 30
    # Memory that runs out takes others first, and rescue.target leaves it running.
    said=$(on_host <<<'systemctl show -p OOMPolicy,OOMScoreAdjust,IgnoreOnIsolate,CollectMode --value fleet-guard | sort | xargs')
    [ "$said" = '-1000 continue inactive-or-failed yes' ]
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

@test "exit 4 where systemd does not say which units fail takes the host back" {
    v1=$(send_system "$I" good v1)
    wrap_program systemctl 'case $* in *list-units*) [ ! -e /var/tmp/mute ] || exit 1 ;; esac; exec true_one "$@"'
    on_host <<SCRIPT
mv $v1/bin/switch-to-configuration $v1/bin/whole
printf '#!/bin/sh\n%s/bin/whole "\$1"\n[ "\$1" != test ] || { : >/var/tmp/mute; exit 4; }\n' $v1 \
    >$v1/bin/switch-to-configuration
chmod 755 $v1/bin/switch-to-configuration
SCRIPT
    guard_start "$I" "$v1"
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=4 why=activation "* ]]
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

@test "an activation that ignores SIGTERM is ended after its time" {
    v1=$(send_system "$I" hangs v1)
    guard_start "$I" "$v1" ACTIVATE_MS=2000
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=124 why=activate-timeout back_rc=0" ]]
    run on_host <<<"ps ax | grep '[/]activate'"
    [ -z "$output" ]
    # The very script that was started may be the one that ignores it.
    v2=$(send_system "$I" good v2)
    on_host <<<"sed -i '2i trap \"\" TERM; sleep 1000' $v2/bin/switch-to-configuration"
    guard_start "$I" "$v2" ACTIVATE_MS=1000
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=137 why=activate-timeout back_rc=0" ]]
}

@test "the deadline passes when the operator is gone; a renewal moves it" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1" CONFIRM_MS=10000
    await_state "$I" 'active *' 30
    for _ in 1 2 3; do
        sleep 4
        run guard_request "$I" renew
        [[ $output == *'request left'* ]]
        [ "$(value deadline_ms <<<"$output")" -gt 6500 ]
    done
    [[ $(guard_poll "$I" | value state) == active* ]]
    await_end "$I" 40
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

@test "leave disarms the guard and commits nothing; an abort is one, whatever the policy" {
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
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
}

@test "on_failure leave: a failed activation whose system runs has a window, is left, and never committed" {
    v1=$(send_system "$I" unit-fails v1)
    guard_start "$I" "$v1" LEAVE=yes
    await_state "$I" 'active * rc=4 failed=migrate.service fault=activation deadline=*' 30
    run guard_request "$I" commit
    [[ $output == *'request refused'* ]]
    # Nor by one who leaves the request all the same: the renewal is seen after it.
    on_host <<<"echo $nonce >/run/fleet/guard/commit; echo r 1<>/run/fleet/guard/wake"
    guard_request "$I" renew
    sleep 0.5
    [[ $(guard_poll "$I" | value state) == 'active '* ]]
    guard_request "$I" leave
    await_end "$I" 30
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
    [[ $(last_word "$I") == "inert $nonce rc=4 failed=migrate.service fault=activation why=leave" ]]
    [ -z "$(inspect "$I" | value deployed)" ]
    # An activate script that fails, where the system was set all the same.
    v2=$(send_system "$I" fail-activate v2)
    guard_start "$I" "$v2" LEAVE=yes
    await_state "$I" 'active * rc=2 fault=activation deadline=*' 30
    guard_request "$I" leave
    await_end "$I" 30
    assert_host "$I" "$v2" "$v0 system-1-link" "$v0"
}

@test "on_failure leave: nobody comes, and the guard is killed: it goes back" {
    v1=$(send_system "$I" unit-fails v1)
    guard_start "$I" "$v1" LEAVE=yes CONFIRM_MS=2000
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=4 failed=migrate.service fault=activation why=deadline back_rc=0" ]]
    guard_start "$I" "$v1" LEAVE=yes
    await_state "$I" 'active *' 30
    on_host <<<'systemctl kill --kill-who=main -s KILL fleet-guard'
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=4 failed=migrate.service fault=activation why=killed "* ]]
    guard_start "$I" "$v1" LEAVE=yes
    await_state "$I" 'active *' 30
    "$testbed" down "$I"
    "$testbed" start "$I"
    run repair "$I"
    [[ $output == *"finished back"*"current $v0"*"profile $v0"* ]]
    assert_old "$I"
}

@test "on_failure leave: one that takes too long is left where its system runs, and what it left behind ends" {
    v1=$(send_system "$I" good v1)
    # The new web.service hangs in its start; a helper of the activation's escapes from its session.
    on_host <<'SCRIPT'
cat >/run/testbed-hook <<'HOOK'
#!/bin/sh
mkdir -p /run/systemd/system/web.service.d
printf '[Service]
ExecStartPre=/bin/sleep 300
' >/run/systemd/system/web.service.d/slow.conf
setsid sleep 12345 >/dev/null 2>&1 &
HOOK
chmod +x /run/testbed-hook
SCRIPT
    guard_start "$I" "$v1" LEAVE=yes ACTIVATE_MS=4000
    await_state "$I" 'active * rc=124 fault=activate-timeout deadline=*' 30
    run on_host <<<'pgrep -f "sleep 1234[5]"'
    [ -z "$output" ]
    guard_request "$I" leave
    await_end "$I" 30
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
    on_host <<<'rm -r /run/testbed-hook /run/systemd/system/web.service.d; systemctl daemon-reload'
    # One that hangs before its system runs has nothing to be left.
    v2=$(send_system "$I" hangs v2)
    guard_start "$I" "$v2" LEAVE=yes ACTIVATE_MS=2000
    await_end "$I" 60
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
    [[ $(last_word "$I") == "reverted $nonce rc=124 "*" why=activate-timeout back_rc=0" ]]
}

@test "a flood of output is capped and does not end the activation" {
    v1=$(send_system "$I" good v1)
    # Whoever writes on is not told that nobody keeps it.
    on_host <<<"sed -i '2i head -c 30000000 /dev/zero | tr \"\\\\\\\\000\" x | fold -w 80 >\&2; \\
        echo the end >\&2 || exit 7' $v1/activate"
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
