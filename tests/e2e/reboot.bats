#!/usr/bin/env bats
# `reboot` and `update --reboot` on real hosts: a new boot id, then probes, wave by wave.

load fleet_driver

setup_file() { begin_hosts 2; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

boot_id() { on "$1" cat /proc/sys/kernel/random/boot_id; }

@test "reboot takes one wave after the other, and each host has booted anew" {
    inventory "h1=$v0" "h2=$v0"
    before1=$(boot_id h1) before2=$(boot_id h2)
    fleet reboot --yes --json --waves 1,100%
    assert_exit 0
    assert_state h1 healthy
    assert_state h2 healthy
    [ "$(event states h1)" = "connecting staged rebooting probing healthy" ]
    [ "$(boot_id h1)" != "$before1" ]
    [ "$(boot_id h2)" != "$before2" ]
    run -1 grep '"wave":2,.*"to":"rebooting"' \
        <(sed '/"type":"wave_end","wave":1/,$d' "$events")
    on h1 'test ! -e /run/fleet/lock'
    # The intent is on disk before the act.
    [ "$(jq -r 'select(.type == "grant") | .act' "$events" | xargs)" = "reboot reboot" ]
}

@test "update --reboot if-needed reboots for another kernel only" {
    inventory "h1=$(system good v1)"
    before=$(boot_id h1)
    update --reboot if-needed h1
    assert_exit 0
    [ "$(boot_id h1)" = "$before" ]
    inventory "h1=$(system reboot v2)"
    update --reboot if-needed h1
    assert_exit 0
    assert_state h1 healthy
    [ "$(boot_id h1)" != "$before" ]
    [ "$(event states h1)" = "connecting building staging staged activating confirming probing committing rebooting probing healthy" ]
    assert_serves h1 v2
    assert_host h1 "$(system reboot v2)" 3
    [ "$(on h1 readlink -f /run/booted-system)" = "$(system reboot v2)" ]
}

@test "a host that does not come back is unknown, and no other one is rebooted" {
    inventory "h1=$v0" "h2=$v0" 'defaults.policy.activate_timeout="8s"'
    before=$(boot_id h2)
    "$FLEET" -i "$inventory" --state-dir "$T/state" reboot --yes --json --waves 1,100% \
        >"$events" 2>"$text" </dev/null 3>&- &
    operator=$!
    await_state 15 h1 rebooting
    "$testbed" down 1
    end_update
    assert_exit 4
    assert_state h1 unknown not-back
    assert_state h2 skipped
    [ "$(boot_id h2)" = "$before" ]
    "$testbed" start 1
}

# Health gating, 14: some failures show only after a reboot.
@test "a service that does not come up with the boot is found" {
    inventory "h1=$v0" "h2=$v0"
    on h2 'systemctl disable web.service 2>/dev/null; printf "[Service]\nExecStart=\nExecStart=/bin/false\n" >/tmp/bad;
        mkdir -p /etc/systemd/system.control/web.service.d; cp /tmp/bad /etc/systemd/system.control/web.service.d/bad.conf'
    fleet reboot --yes --json h2
    assert_exit 3
    assert_state h2 failed '*' 'after the reboot'
    on h2 'rm -r /etc/systemd/system.control/web.service.d'
}
