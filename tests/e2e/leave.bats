#!/usr/bin/env bats
# `on_failure: leave` where the activation itself fails: what runs is left, said so and never committed,
# but only by somebody who can still get in. What the guard does by itself is guard.bats's to hold.

load resume_driver

# left_inventory HOST=SYSTEM...: with the policy, and time for everybody to fail.
left_inventory() {
    inventory 'defaults.policy.on_failure="leave"' 'defaults.policy.max_failed=3' \
        'defaults.policy.waves=["100%"]' 'defaults.policy.max_parallel=3' "$@"
}

# The next activation there starts a web service that hangs in its start.
slow_start() { # HOST
    on "$1" /bin/sh -s <<'SCRIPT'
cat >/run/testbed-hook <<'HOOK'
#!/bin/sh
[ "$1" = activate ] || exit 0
rm /run/testbed-hook
mkdir -p /run/systemd/system/web.service.d
printf '[Service]\nExecStartPre=/bin/sleep 300\n' >/run/systemd/system/web.service.d/slow.conf
HOOK
chmod +x /run/testbed-hook
SCRIPT
}

@test "exit 4, exit 2 and a time-out: each runs on, uncommitted, and the lines that go on are right" {
    slow_start h3
    left_inventory h1="$(system unit-fails v1)" h2="$(system fail-activate v1)" \
        h3="$(system good v1)" 'hosts.h3.policy.activate_timeout="4s"'
    update
    assert_exit 3
    event check "$root/fleet.events.schema.json"
    assert_state h1 failed units-failed 'units failed: migrate.service; left running, not committed'
    assert_state h2 failed activation-failed 'ended with 2; left running, not committed'
    assert_state h3 failed activate-timeout 'left running, not committed'
    for h in h1 h2 h3; do
        [ "$(event states $h | tr ' ' '\n' | tail -n 3 | xargs)" = "activating confirming failed" ]
        [ "$(logins $h)" -ge 2 ]
    done
    assert_host h1 "$v0" 1 "$(system unit-fails v1)"
    assert_host h2 "$v0" 1 "$(system fail-activate v1)"
    assert_host h3 "$v0" 1 "$(system good v1)"
    fleet status --json
    for h in h1 h2 h3; do
        grep -q "\"host\":\"$h\".*\"in_sync\":false.*\"drift\":\[\"not-committed\"" "$events"
    done
    # The message's own words: back, or mended and then committed.
    fleet rollback --yes --json --to 1 h1
    assert_exit 0
    assert_host h1 "$v0" 1
    on h3 sh -c '"rm -r /run/systemd/system/web.service.d; systemctl daemon-reload; systemctl stop web"'
    update h3
    assert_exit 0
    assert_host h3 "$(system good v1)" 2
}

# holds_logins HOST: from its next activation on nobody gets in anew, until `lets_in` (or, where the test
# has failed, for a minute); what is open stays, such as a session of the test's own.
holds_logins() {
    local in
    on "$1" /bin/sh -s <<'SCRIPT'
cat >/run/testbed-hook <<'HOOK'
#!/bin/sh
[ "$1" = activate ] || exit 0
rm /run/testbed-hook
sshd=$(systemctl show -p MainPID --value sshd.service)
systemd-run --quiet --on-active=60 kill -CONT "$sshd"
kill -STOP "$sshd"
HOOK
chmod +x /run/testbed-hook
SCRIPT
    rm -f "$T/$1.words"
    mkfifo "$T/$1.words"
    exec {in}<>"$T/$1.words"
    ("$testbed" ssh "${1#h}" /bin/sh <&$in >/dev/null 2>&1 3>&-) &
    words[${1#h}]=$in
}

tell_host() { echo "$2" >&"${words[${1#h}]}"; } # HOST COMMAND

lets_in() { tell_host "$1" 'kill -CONT "$(systemctl show -p MainPID --value sshd.service)"'; } # HOST

@test "nobody gets in anew: it goes back; a connection that breaks meanwhile is made again, and it is left" {
    holds_logins h1
    holds_logins h2
    left_inventory h1="$(system unit-fails v2)" h2="$(system unit-fails v2)" \
        'hosts.h1.policy.confirm_timeout="5s"' 'hosts.h2.policy.confirm_timeout="30s"'
    before=$(on h2 readlink -f $profile)
    generation=$(generation h2)
    start_update --on h1,h2
    await_state 40 h2 confirming
    # All sessions but this one; then the door opens.
    tell_host h2 'for p in $(pgrep -f "sshd: [r]oot@"); do [ $p = $PPID ] || kill -9 $p; done'
    lets_in h2
    await_state 40 h1 rolled_back
    lets_in h1
    end_update
    assert_exit 3
    assert_state h1 rolled_back units-failed 'units failed: migrate.service; not left: its guard could not'
    assert_host h1 "$v0" 1
    assert_state h2 failed units-failed 'left running, not committed'
    assert_host h2 "$before" "$generation" "$(system unit-fails v2)"
    grep -q '↺ h1 .*not left: its guard could not be told to' "$text"
}

# await_no_guard SECONDS HOST: until its guard has decided by itself.
await_no_guard() {
    local end=$((SECONDS + $1))
    until on "$2" test ! -e /var/lib/fleet/guard/record; do
        [ $SECONDS -lt $end ] || { echo "a guard on $2 still after $1 s" >&2; return 1; }
        sleep 0.5
    done
}

@test "killed with -9 in that window: who resumes leaves it, too; too late, and it is a new try" {
    holds_logins h1
    left_inventory h1="$(system unit-fails v3)" 'hosts.h1.policy.confirm_timeout="30s"'
    start_update h1
    die_at h1 confirming
    lets_in h1
    resume
    assert_exit 3
    assert_state h1 failed units-failed 'migrate.service; left running, not committed'
    assert_host h1 "$v0" 1 "$(system unit-fails v3)"
    [ "$(grants h1 activate)" = 1 ]
    [ "$(grants h1 commit)" = 0 ]
    left_inventory h1="$(system fail-activate v3)" 'hosts.h1.policy.confirm_timeout="4s"'
    start_update h1
    await_event 40 '"type":"guard","host":"h1".*"phase":"activating"'
    kill -9 "$operator"
    await_no_guard 60 h1
    [ "$(on h1 readlink -f /run/current-system)" = "$(system unit-fails v3)" ]
    resume
    assert_exit 3
    assert_state h1 failed activation-failed 'left running, not committed'
    assert_host h1 "$v0" 1 "$(system fail-activate v3)"
}

@test "rollback false: a failed activation is left, committed, and what runs is said" {
    left_inventory h1="$(system fail-activate v4)" h2="$(system hangs v4)" \
        'defaults.policy.on_failure="rollback-all"' 'defaults.policy.rollback=false' \
        'hosts.h2.policy.activate_timeout="3s"'
    running=$(on h2 readlink -f /run/current-system)
    update --on h1,h2
    assert_exit 3
    assert_state h1 failed activation-failed 'left running: `rollback` is false'
    assert_host h1 "$(system fail-activate v4)" "$(generation h1)"
    assert_state h2 failed activate-timeout "is committed, but $running runs"
    assert_host h2 "$(system hangs v4)" "$(generation h2)" "$running"
}
