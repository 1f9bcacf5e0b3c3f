#!/usr/bin/env bats
# The guard, as in guard.bats: what is asked of it and what a commit does to the profile and the
# boot default, for each action; the lock; and the probes' scripts. Every test has a host of its own.

load guard_driver

setup_file() { begin_guards; }
teardown_file() { "$testbed" destroy; }
setup() { begin_guard; }
teardown() { end_guard; }

@test "a commit that fails on a full /boot is undone" {
    v1=$(send_system "$I" reboot v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    "$testbed" fill "$I" boot
    guard_request "$I" commit
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == *'why=commit-failed'* ]]
    # The menu could not be written either way: it is the old one, and nothing is left to be said.
    [[ $(last_word "$I") != *boot_rc* ]]
    run on_host <<<'ls /nix/var/nix/profiles | grep -c system-'
    [ "$output" = 1 ]
    guard_poll "$I" | grep 'log .*No space left'
    # By on_failure leave the proven system runs on.
    guard_start "$I" "$v1" LEAVE=yes
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 60
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
    [[ $(last_word "$I") == "inert $nonce rc=0 fault=commit-failed why=leave" ]]
}

@test "a commit is undone without nix-env, and links are replaced, never moved into the store" {
    v1=$(send_system "$I" good v1)
    on_host <<<"mkdir -p /nix/var/nix/gcroots/fleet; ln -s $v0 /nix/var/nix/gcroots/fleet/guard-new"
    wrap_program nix-env 'case "$*" in *--switch-generation*) kill -KILL $$ ;; esac; exec true_one "$@"'
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    "$testbed" fill "$I" boot
    guard_request "$I" commit
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted "*'why=commit-failed'* ]]
    run on_host <<<"ls $v0 $v1 | grep tmp; ls /nix/var/nix/profiles | grep -c system-"
    [ "$output" = 1 ]
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

@test "no start while NixOS's own switch is at work, nor while the host goes down" {
    v1=$(send_system "$I" good v1)
    on_host <<<'systemd-run --quiet --unit=nixos-rebuild-switch-to-configuration sleep 300'
    run guard_start "$I" "$v1"
    [[ $output == 'guard busy'*'a nixos-rebuild switch is running' ]]
    on_host <<<'systemctl stop nixos-rebuild-switch-to-configuration'
    wrap_program systemctl 'case $* in *is-system-running*) echo stopping; exit 1 ;; esac; exec true_one "$@"'
    run guard_start "$I" "$v1"
    [ "$output" = 'guard stopping' ]
    run on_host <<<'ls -d /var/lib/fleet/guard /run/fleet/guard'
    [ "$status" -ne 0 ]
    assert_old "$I"
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
    # Nor does the right one prove anything while the activation goes on.
    on_host <<SCRIPT
printf '#!/bin/sh\necho %s >/run/fleet/guard/commit\n' $nonce >/run/testbed-hook
chmod 755 /run/testbed-hook
SCRIPT
    guard_start "$I" "$v2" CONFIRM_MS=3000
    await_state "$I" 'active *' 30
    nonce=first0first0first run guard_request "$I" commit
    [[ $output == *'request refused'* ]]
    on_host <<<'echo first0first0first >/run/fleet/guard/commit; echo first0first0first >/run/fleet/guard/renew'
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=deadline '* ]]
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
    # Back to generation 1, by number: it stays where that can't be committed.
    "$testbed" fill "$I" boot
    guard_start "$I" "$v0" TO=1
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 60
    "$testbed" unfill "$I" boot
    assert_new "$I" "$v1"
    [[ $(last_word "$I") == *' why=commit-failed '* ]]
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
    [ -z "$(inspect "$I" | value deployed)" ]
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
    # Nor is it taken back where the guard is killed.
    v2=$(send_system "$I" hangs v2)
    run_script "$I" lock record commit_now -- LOCK_ID= PROFILE=/nix/var/nix/profiles/system \
        ACT_RUN=run2 NEW="$v2" ACTIVATE_MS=30000 REV=r WHO=w DIRTY=true TO=0
    guard_start "$I" "$v2" ACTION=committed
    on_host <<<'until pgrep -f "[/]activate" >/dev/null; do sleep 0.05; done; systemctl kill --kill-who=main -s KILL fleet-guard'
    await_end "$I" 30
    [[ $(last_word "$I") == "committed $nonce rc=-1 why=killed current=$v1" ]]
    [ "$(on_host <<<'readlink /nix/var/nix/profiles/system; cat /boot/loader/default')" = "system-3-link"$'\n'"$v2" ]
}

@test "what does not run any more is not committed" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<"ln -sfn $v0 /run/current-system"
    guard_request "$I" commit
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=0 why=commit-failed "* ]]
    guard_poll "$I" | grep 'log .*not committed'
}

@test "a commit at once that fails leaves profile and boot default as they were" {
    v1=$(send_system "$I" reboot v1)
    "$testbed" fill "$I" boot
    run run_script "$I" lock record commit_now -- LOCK_ID= PROFILE=/nix/var/nix/profiles/system \
        ACT_RUN=run1 NEW="$v1" ACTIVATE_MS=30000 REV=r WHO=w DIRTY=true TO=0
    [[ $output == *'log '*'No space left'* ]]
    [[ $output == *'rc 1'* ]]
    assert_old "$I"
    "$testbed" unfill "$I" boot
    v2=$(send_system "$I" good v2)
    on_host <<<"echo 'exit 1' >>$v2/install-bootloader" # the menu has been written by then
    run run_script "$I" lock record commit_now -- LOCK_ID= PROFILE=/nix/var/nix/profiles/system \
        ACT_RUN=run1 NEW="$v2" ACTIVATE_MS=30000 REV=r WHO=w DIRTY=true TO=0
    [[ $output == *'rc 1'* ]]
    assert_old "$I"
}

@test "whose lock is gone changes nothing; a guard at work is let be; who aborts needs no lock" {
    v1=$(send_system "$I" good v1)
    at_once() { # LOCK_ID
        run_script "$I" lock record commit_now -- LOCK_ID="$1" PROFILE=/nix/var/nix/profiles/system \
            ACT_RUN=run1 NEW="$v1" ACTIVATE_MS=30000 REV=r WHO=w DIRTY=true TO=0
    }
    mend() { # LOCK_ID
        run_script "$I" lock record repair -- PROFILE=/nix/var/nix/profiles/system LOCK_ID="$1" \
            WAIT_MS=1000 GUARD_SH="$(guard_text)"
    }
    renew() { # LOCK_ID, YES OR NO
        run_script "$I" lock lock_take -- LOCK_ID="$1" LOCK_RUN=run1 LOCK_WHO=w LEASE_MS=60000 RENEW="$2"
    }
    renew ours no
    [[ $(renew lost yes) == 'lock lost'*'lock_id ours'* ]]
    [[ $(at_once lost) == *'guard lock-lost'* ]]
    said=$(run_script "$I" lock secret_put -- LOCK_ID=lost SECRET_PATH=/root/secret OWNER=root GROUP=root \
        MODE=0400 CONTENT=aGk= UNITS=)
    [ "$said" = 'secret lock-lost' ]
    on_host <<<'test ! -e /root/secret'
    assert_old "$I"
    guard_start "$I" "$v1" LOCK_ID=ours
    await_state "$I" 'active *' 30
    [[ $(at_once ours) == *'guard busy'* ]]
    [[ $(mend lost) == 'finished lock-lost' ]]
    [[ $(mend ours) == 'finished busy' ]]
    [ -z "$(guard_poll "$I" NONCE=another0another0 | value state)" ]
    [[ $(guard_request "$I" abort LOCK_ID=lost) == *'request left'* ]]
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == *' why=abort '* ]]
}

@test "health gating 4: a running system that can't be gone back to is left alone" {
    v1=$(send_system "$I" good v1)
    on_host <<<'ln -sfn "$(dirname "$(readlink -f /run/current-system/sw/bin/sh)")" /run/current-system'
    run guard_start "$I" "$v1"
    [[ $output == *'guard no-switch'*'detail the running system '*' to go back with'* ]]
    run on_host <<<"systemctl is-active fleet-guard; ls -d /var/lib/fleet/guard; ln -sfn $v0 /run/current-system"
    [[ $output == *inactive*'No such file'* ]]
}

@test "health gating 4: what is gone back to is kept from garbage collection, whatever it was" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1" ACTION=test
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 30
    # No generation has what runs now, and the one to come takes the place of the running system.
    v2=$(send_system "$I" good v2)
    guard_start "$I" "$v2"
    await_state "$I" 'active *' 30
    # While the guard lives, its programs' surroundings keep what they name.
    kill_wholly
    on_host <<<'nix-store --gc >/dev/null 2>&1'
    [[ $(repair "$I") == *'finished back'* ]]
    assert_host "$I" "$v1" "$v0 system-1-link" "$v0"
}

@test "what can't be undone of a commit is said: the boot default, the profile" {
    v1=$(send_system "$I" good v1)
    v2=$(send_system "$I" good v2)
    on_host <<SCRIPT
echo 'exit 1' >>$v1/install-bootloader
sed -i '2i exit 1' $v0/install-bootloader
sed -i '2i cd /nix/var/nix/profiles; mount --bind . .; mount -o remount,bind,ro /nix/var/nix/profiles; exit 1' $v2/install-bootloader
SCRIPT
    hasty=$(guard_text | sed 's/^TRIES_IN_VAIN=.*/TRIES_IN_VAIN=2/')
    guard_start "$I" "$v1" GUARD_SH="$hasty"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 60
    assert_host "$I" "$v0" "$v0 system-1-link" "$v1"
    [[ $(last_word "$I") == "reverted $nonce rc=0 why=commit-failed back_rc=0 boot_rc=1" ]]
    guard_start "$I" "$v2" GUARD_SH="$hasty"
    await_state "$I" 'active *' 30
    guard_request "$I" commit
    await_end "$I" 60
    [[ $(last_word "$I") == "revert-failed $nonce rc=0 why=commit-failed back_rc=0 current=$v0" ]]
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
    on_host <<<'flock /run/nixos/switch-to-configuration.lock sh -c "touch /run/held; sleep 10" >/dev/null 2>&1 &
until [ -e /run/held ]; do sleep 0.05; done'
    [ "$(inspect "$I" | value switch_lock)" = yes ]
    guard_request "$I" abort
    await_end "$I" 30
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=0 why=abort back_rc=0" ]]
}

@test "the lock: one of many gets it, a lapsed one is taken over, a live guard's never" {
    take() { # id, run, lease
        run_script "$I" lock lock_take -- LOCK_ID="$1" LOCK_RUN="$2" LOCK_WHO="$1@there 77" LEASE_MS="$3" \
            RENEW=no
    }
    compose lock lock_take -- LOCK_ID=ID LOCK_RUN=ID LOCK_WHO=w LEASE_MS=60000 RENEW=no \
        >"$BATS_TEST_TMPDIR/take"
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
    local end=$((SECONDS + 30))
    until [[ $(run_script "$I" units -- GLOBS=) =~ 'unit web.service loaded activating '[a-z-]+' '[1-9] ]]; do
        [ $SECONDS -lt $end ]
    done
}

@test "commands: words, exit status, time-out" {
    run run_script "$I" run -- COMMAND="'sh' '-c' 'echo \"\$1\"; exit 3' x 'a  b'" SECONDS_MAX=5
    [[ $output == *'out a  b'* && $output == *'rc 3'* ]]
    run run_script "$I" run -- COMMAND="'sleep' '10'" SECONDS_MAX=0.5
    [[ $output == *'rc 124'* ]]
    # Its last words, however many there are, and the status on a line of its own.
    words="'sh' '-c' 'seq 1 100000; printf end; exit 5'"
    run run_script "$I" run -- COMMAND="$words" SECONDS_MAX=20
    grep -qx 'rc 5' <<<"$output"
    grep -qx 'out 100000' <<<"$output"
    grep -qx 'out end' <<<"$output"
    [ ${#output} -lt 5000 ]
}
