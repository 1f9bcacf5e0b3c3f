#!/usr/bin/env bats
# The guard's way back where something is in its way: what it outwaits and what it gives up, and
# which services it brings to their old form. Every test has a host of its own.

load guard_driver

setup_file() { begin_guards; }
teardown_file() { "$testbed" destroy; }
setup() { begin_guard; }
teardown() { end_guard; }

served() { "$testbed" status | awk -v host="h$I" '$1 == host { print $5 }'; }

guard_text_patient() { # SECONDS: a guard that has less patience
    guard_text | sed "s/^BACK_MIN_S=.*/BACK_MIN_S=$1/"
}

# UNIT...: says when each was started, and what it is.
invocations() {
    "$testbed" ssh "$I" "systemctl show -p Id,ActiveState,InvocationID -- $*"
}

# systemd refuses to reload with less than 16 MB free in /run. The older switch-to-configuration goes on
# then, starts by the unit files it had before, and forgets what it has started.
@test "/run too full for systemd to reload while going back: no service stays on the new version" {
    v1=$(send_system "$I" good v1)
    before=$(served)
    on_host <<<': >/etc/testbed-perl'
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    [ "$(served)" = v1 ]
    "$testbed" fill "$I" run
    on_host <<<'truncate -s -1M /run/.testbed-fill'
    guard_request "$I" abort
    await_state "$I" 'reverting * try=2 stuck=room' 30
    "$testbed" unfill "$I" run
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted "* ]]
    [ "$(served)" = "$before" ]
}

@test "/run full while going back, for longer than a few tries: outwaited, and all is back" {
    v1=$(send_system "$I" good v1)
    before=$(served)
    for perl in no yes; do
        [ $perl = no ] || on_host <<<': >/etc/testbed-perl'
        guard_start "$I" "$v1"
        await_state "$I" 'active *' 30
        "$testbed" fill "$I" run
        guard_request "$I" abort
        await_state "$I" 'reverting * try=2 stuck=room' 30
        [ $perl = yes ] || sleep 6
        [ "$(guard_poll "$I" | value alive)" = yes ]
        "$testbed" unfill "$I" run
        await_end "$I" 60
        assert_old "$I"
        [[ $(last_word "$I") == "reverted "*" back_rc=0" ]]
        [ "$(served)" = "$before" ]
    done
}

@test "/run that stays full: given up when the patience is over, and said why" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1" ACTIVATE_MS=8000 GUARD_SH="$(guard_text_patient 8)"
    await_state "$I" 'active *' 30
    "$testbed" fill "$I" run
    guard_request "$I" abort
    await_end "$I" 60
    [[ $(last_word "$I") == "revert-failed "*" stuck=room current=$v0" ]]
    "$testbed" unfill "$I" run
}

@test "/run full in mid-activation: where systemd has read nothing new, nothing is waited for" {
    v1=$(send_system "$I" good v1)
    before=$(served)
    on_host <<'SCRIPT'
cat >/run/testbed-hook <<'HOOK'
#!/bin/sh
[ "$1" = activate ] || exit 0
dd if=/dev/zero of=/run/.testbed-fill bs=64k 2>/dev/null
exit 0
HOOK
chmod 755 /run/testbed-hook
SCRIPT
    guard_start "$I" "$v1"
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted "*"why=activation"* ]]
    [ "$(served)" = "$before" ]
}

fill_run_when() { # action, system: once, and leaves a page for lists, but nothing for systemd
    on_host <<SCRIPT
cat >/run/testbed-hook <<'HOOK'
#!/bin/sh
[ "\$1 \$2" = "$1 $2" ] && mkdir /var/tmp/filled || exit 0
dd if=/dev/zero of=/run/.testbed-fill bs=64k 2>/dev/null
truncate -s -1M /run/.testbed-fill
HOOK
chmod 755 /run/testbed-hook
: >/etc/testbed-perl
SCRIPT
}

@test "a refused reload behind an exit status of 4, going back: no service stays on the new version" {
    v1=$(send_system "$I" unit-fails v1)
    before=$(served)
    fill_run_when activate "$v0"
    guard_start "$I" "$v1"
    await_state "$I" 'reverting * try=2 stuck=room' 30
    "$testbed" unfill "$I" run
    await_end "$I" 60
    assert_old "$I"
    [ "$(served)" = "$before" ]
}

@test "a refused reload behind an exit status of 4, going forward: not taken for a good activation" {
    v1=$(send_system "$I" good v1)
    before=$(served)
    "$testbed" fail-unit "$I"
    fill_run_when activate "$v1"
    guard_start "$I" "$v1"
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=4 why=activation "* ]]
    [ "$(served)" = "$before" ]
}

@test "an exit status of 4 without a reload is good where the new system brings no services" {
    v1=$(send_system "$I" good v1)
    "$testbed" fail-unit "$I"
    on_host <<SCRIPT
rm $v1/etc/systemd/system/*.service
mv $v1/bin/switch-to-configuration $v1/bin/whole
cat >$v1/bin/switch-to-configuration <<'SWITCH'
#!/bin/sh
[ "\$1" = test ] || exec $v1/bin/whole "\$1"
ln -sfn $v1 /run/current-system
exit 4
SWITCH
chmod 755 $v1/bin/switch-to-configuration
SCRIPT
    guard_start "$I" "$v1"
    await_state "$I" 'active * rc=4 *' 30
    guard_request "$I" commit
    await_end "$I" 30
    assert_new "$I" "$v1"
}

@test "NixOS's switch lock held while going back is outwaited" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<<'systemd-run --quiet --unit=holder flock /run/nixos/switch-to-configuration.lock /usr/bin/sleep 300'
    guard_request "$I" abort
    await_state "$I" 'reverting * try=4 stuck=lock' 60
    on_host <<<'systemctl stop holder'
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted "*" back_rc=0" ]]
}

@test "an old system whose script fails by its own fault is tried three times, and is back" {
    v1=$(send_system "$I" good v1)
    before=$(served)
    on_host <<<"sed -i -e '\$i status=1; echo \$action >>/var/tmp/switched' $v0/bin/switch-to-configuration"
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" abort
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted "*" back_rc=1" ]]
    [ "$(on_host <<<'grep -c test /var/tmp/switched')" = 3 ]
    [ "$(served)" = "$before" ]
}

@test "an old system that can't be activated at all is given up, and said" {
    v1=$(send_system "$I" good v1)
    on_host <<<"sed -i '2i echo \$1 >>/var/tmp/switched; exit 1' $v0/bin/switch-to-configuration"
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    guard_request "$I" abort
    await_end "$I" 90
    [[ $(last_word "$I") == "revert-failed "*" back_rc=1 current=$v1" ]]
    [ "$(on_host <<<'grep -c test /var/tmp/switched')" = 5 ]
}

# A way back that was cut short: its links are the old system's, so the next try finds nothing to do.
@test "which services the way back touches: those that differ, by NixOS's rules, and no other" {
    v1=$(send_system "$I" good v1)
    on_host <<SCRIPT
unit() { # file, words of [Unit], version
    printf '[Unit]\n%s\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true %s\nExecReload=/bin/sh -c "echo reloaded >>/var/tmp/reloaded"\n' "\$2" "\$3" >"\$1"
}
for system in $v0 $v1; do
    cd \$system/etc/systemd/system
    unit differs.service '' \$system
    unit stopped.service '' same
    unit idle.service '' \$system
    unit same.service '' same
    unit quiet.service X-RestartIfChanged=false \$system
    unit quiet-dropin.service '' \$system
    unit reloads.service X-ReloadIfChanged=true \$system
    unit template@.service '' \$system
    unit dropin.service '' same
    mkdir dropin.service.d
    printf '[Service]\nEnvironment=OF=%s\n' \$system >dropin.service.d/overrides.conf
    unit dropin-same.service '' same
    mkdir dropin-same.service.d
    printf '[Service]\nEnvironment=OF=all\n' >dropin-same.service.d/overrides.conf
    mkdir quiet-dropin.service.d
    printf '[Unit]\nX-RestartIfChanged=false\n' >quiet-dropin.service.d/overrides.conf
done
unit gone.service '' new
unit stays.service X-StopOnRemoval=false new
unit stays-dropin.service '' new
mkdir stays-dropin.service.d
printf '[Unit]\nX-StopOnRemoval=false\n' >stays-dropin.service.d/overrides.conf
systemctl daemon-reload
systemctl start stopped.service
sed -i '2i [ -e /var/tmp/cut ] || { : >/var/tmp/cut; $v0/activate; exit 1; }' $v0/bin/switch-to-configuration
SCRIPT
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    local units='differs same dropin dropin-same quiet quiet-dropin reloads template@a gone stays stays-dropin worker sshd'
    units="$(printf '%s.service ' $units)"
    on_host <<<"systemctl start $units; systemctl stop stopped.service"
    invocations "$units" >"$BATS_TEST_TMPDIR/before"
    guard_request "$I" abort
    await_end "$I" 60
    assert_old "$I"
    invocations "$units" >"$BATS_TEST_TMPDIR/after"
    run diff <(touched "$BATS_TEST_TMPDIR/before" "$BATS_TEST_TMPDIR/after") - <<'WANT'
differs.service active
dropin.service active
gone.service inactive
WANT
    echo "$output"
    [ "$status" = 0 ]
    [ "$(on_host <<<'cat /var/tmp/reloaded')" = reloaded ]
    [ "$(on_host <<<'systemctl is-active stopped.service idle.service')" = $'active\ninactive' ]
    # A template is no name that systemd takes.
    [ -z "$(on_host <<<'grep "systemctl .* failed" /run/fleet/guard/activation.log || true')" ]
}

# BEFORE, AFTER: the units that were started or stopped in between, and what they are now.
touched() {
    diff <(one_a_line "$1") <(one_a_line "$2") | sed -n 's/^> \([^ ]*\) \([^ ]*\) .*/\1 \2/p' | sort
}

one_a_line() { # FILE of blocks KEY=VALUE: "ID STATE INVOCATION"
    awk -F= '/^Id=/ { id = $2 } /^ActiveState=/ { state = $2 } /^InvocationID=/ { invocation = $2 }
        /^$/ { print id, state, invocation } END { print id, state, invocation }' "$1" | sort -u
}

@test "a new system that refuses before it does anything: the way back restarts nothing" {
    v1=$(send_system "$I" good v1)
    on_host <<<"sed -i '2i echo Pre-switch checks failed >&2; exit 1' $v1/bin/switch-to-configuration"
    invocations worker.service sshd.service web.service >"$BATS_TEST_TMPDIR/before"
    guard_start "$I" "$v1"
    await_end "$I" 60
    assert_old "$I"
    [[ $(last_word "$I") == "reverted $nonce rc=1 why=activation back_rc=0" ]]
    invocations worker.service sshd.service web.service | diff "$BATS_TEST_TMPDIR/before" -
}

@test "a new system without a service of its own: the way back restarts none" {
    v1=$(send_system "$I" good v1)
    guard_start "$I" "$v1"
    await_state "$I" 'active *' 30
    on_host <<SCRIPT
rm $v1/etc/systemd/system/*.service
sed -i '2i [ -e /var/tmp/cut ] || { : >/var/tmp/cut; $v0/activate; exit 1; }' $v0/bin/switch-to-configuration
SCRIPT
    invocations worker.service sshd.service web.service >"$BATS_TEST_TMPDIR/before"
    guard_request "$I" abort
    await_end "$I" 60
    assert_old "$I"
    invocations worker.service sshd.service web.service | diff "$BATS_TEST_TMPDIR/before" -
}
