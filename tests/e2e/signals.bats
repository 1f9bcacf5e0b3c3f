#!/usr/bin/env bats
# Ctrl-C once, twice, three times, SIGTERM, a terminal that closes: what a run does, and says, each
# time. The hosts end right in every case, and one command goes on from there. And the person who is
# not content with how a host has ended, and has it tried again.

load fleet_driver

setup_file() { begin_hosts 5; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

# A line of the run's own about the signal, with the states and the way on, before the run has ended.
await_word() { # PATTERN
    await_event 20 "\"stream\":\"fleet\",\"line\":\"$1.*Now: .*probing.*fleet resume "
}

await_gone() { # SECONDS PID
    local end=$((SECONDS + $1))
    while kill -0 "$2" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$2/status" 2>/dev/null; do
        [ $SECONDS -lt $end ] || { echo "pid $2 is still there after $1 s" >&2; return 1; }
        sleep 0.1
    done
}

await_reverted() { # HOST
    local end=$((SECONDS + 40 * patience))
    until on "$1" 'sh -c "! systemctl is-active -q fleet-guard && ! test -e /var/lib/fleet/guard"' \
        2>/dev/null; do
        [ $SECONDS -lt $end ] || { echo "the guard of $1 does not end" >&2; return 1; }
        sleep 0.5
    done
}

# at_terminal PATTERN ACTION... -- OPTION...: an update with the dashboard; see keyed_tty.py.
at_terminal() {
    local steps=()
    while [ "$1" != -- ]; do
        steps+=("$1")
        shift
    done
    shift
    "$support/keyed_tty.py" "$T/state/runs" "${steps[@]}" -- env -u CI -u NO_COLOR \
        "$FLEET" -i "$inventory" --state-dir "$T/state" update --yes "$@" >"$T/terminal" 3>&-
    cat "$T/terminal"
    events=$T/state/runs/$(sed -n 's/^run //p' "$T/terminal")/journal.jsonl
    status=$(sed -n 's/^exit //p' "$T/terminal")
}

@test "interrupted once it says so, drains, and starts no other host" {
    inventory h1="$(system good v2)" h2="$(system good v2)" 'hosts.h1.policy.min_healthy_time="3s"'
    start_update --waves 1,100%
    await_state 30 h1 probing
    kill -INT "$operator"
    await_word 'interrupted: no more hosts are started'
    end_update
    assert_exit 130
    assert_state h1 healthy
    assert_state h2 skipped stopped
    assert_host h1 "$(system good v2)" 2
    assert_host h2 "$v0" 1
    grep -q 'go on with: fleet resume' "$text"
}

@test "interrupted twice it leaves with the guard armed and lets its lock go" {
    inventory h2="$(system good v2)" 'hosts.h2.policy.min_healthy_time="60s"' \
        'defaults.policy.confirm_timeout="6s"'
    start_update
    await_state 30 h2 probing
    kill -INT "$operator"
    await_word 'interrupted: '
    kill -INT "$operator"
    await_word 'leaving: '
    await_gone 30 "$operator"
    end_update
    assert_exit 130
    grep -q 'go on with: fleet resume' "$text"
    grep -q 'probing.*: h2' "$text"
    on h2 test ! -e /run/fleet/lock
    await_reverted h2
    # It was left armed: it has waited for its deadline, and nobody has told it to go back.
    [[ $(on h2 cat /var/lib/fleet/guard.last) == *' why=deadline '* ]]
    assert_host h2 "$v0" 1
    assert_serves h2 v0
}

@test "SIGTERM drains and leaves as Ctrl-C does; whoever comes next finds no lock" {
    inventory h2="$(system good v2)" 'hosts.h2.policy.min_healthy_time="60s"' \
        'defaults.policy.confirm_timeout="6s"'
    start_update
    await_state 30 h2 probing
    kill -TERM "$operator"
    await_word 'interrupted: '
    kill -TERM "$operator"
    await_gone 30 "$operator"
    end_update
    assert_exit 143
    grep -q 'go on with: fleet resume' "$text"
    await_reverted h2
    inventory h2="$(system good v2)"
    update
    assert_exit 0
    assert_host h2 "$(system good v2)" 2
}

# A host that hangs is waited for until the time to leave is up: the third signal doesn't.
@test "the third Ctrl-C ends it at once, with a summary and the journal's last line" {
    inventory h3="$(system good v2)" 'hosts.h3.policy.min_healthy_time="60s"' \
        'defaults.policy.confirm_timeout="6s"'
    start_update
    await_state 30 h3 probing
    "$testbed" freeze 3
    kill -INT "$operator"
    await_word 'interrupted: '
    kill -INT "$operator"
    await_word 'leaving: '
    kill -INT "$operator"
    await_gone 7 "$operator"
    end_update
    "$testbed" thaw 3
    assert_exit 130
    grep -q 'go on with: fleet resume' "$text"
    grep -q 'probing.*: h3' "$text"
    tail -n 1 "$events" | grep -q "\"type\":\"run_end\""
    await_reverted h3
    on h3 rm -f /run/fleet/lock # nobody could let go of it
    assert_host h3 "$v0" 1
    assert_serves h3 v0
}

@test "a hang-up drains, however often it comes" {
    inventory h4="$(system good v2)" h5="$(system good v2)" 'hosts.h4.policy.min_healthy_time="3s"'
    start_update --waves 1,100%
    await_state 30 h4 probing
    kill -HUP "$operator"
    await_word 'the terminal is gone: '
    kill -HUP "$operator"
    kill -HUP "$operator"
    end_update
    assert_exit 143
    assert_state h4 healthy
    assert_state h5 skipped stopped
    assert_host h4 "$(system good v2)" 2
}

@test "whoever is told to ignore hang-ups does" {
    inventory h5="$(system good v2)" 'hosts.h5.policy.min_healthy_time="3s"'
    (trap '' HUP && exec "$FLEET" -i "$inventory" --state-dir "$T/state" update --yes --json \
        >"$events" 2>"$text" </dev/null 3>&-) &
    operator=$!
    await_state 30 h5 probing
    kill -HUP "$operator"
    end_update
    assert_exit 0
    assert_state h5 healthy
}

@test "a terminal that closes under the dashboard ends nothing: the run drains and goes" {
    inventory h4="$(system good v3)" h5="$(system good v3)" 'hosts.h4.policy.min_healthy_time="5s"'
    at_terminal 'h4.*"to":"probing"' close -- --waves 1,100%
    assert_exit 143
    assert_state h4 healthy
    assert_state h5 skipped stopped
    assert_host h4 "$(system good v3)" 3
    assert_host h5 "$(system good v2)" 2
}

# h1 holds the run open; h2's probe fails until it is tried again; h3 is skipped, as the run stops.
@test "a run that has stopped is taken up by a retry; who was skipped is tried, too; all end well" {
    local good
    good=$(system good v4)
    inventory h1="$good" h2="$good" h3="$good" 'defaults.policy.waves=[2, "100%"]' \
        'defaults.policy.max_parallel=2' 'defaults.policy.order="inventory"' \
        "hosts.h1.health=[{\"name\": \"file\", \"type\": \"command\", \"from\": \"operator\",
            \"run\": [\"test\", \"-e\", \"$T/h1-ok\"], \"interval\": \"200ms\"}]" \
        "hosts.h2.health=[{\"name\": \"file\", \"type\": \"command\", \"from\": \"operator\",
            \"run\": [\"test\", \"-e\", \"$T/h2-ok\"], \"interval\": \"200ms\"}]" \
        'hosts.h1.policy.healthy_deadline="70s"' 'hosts.h2.policy.healthy_deadline="3s"' \
        'defaults.policy.tolerate_preexisting=false'
    at_terminal '"h3".*"to":"skipped","reason":"budget"' "touch:$T/h2-ok" \
        '"h2".*"to":"rolled_back"' 'keys:/h2\rrh2\r' \
        '"h2".*"from":"rolled_back","to":"pending","reason":"retry"' 'keys:\x1b/h3\rr' \
        '"h3".*"from":"skipped","to":"pending","reason":"retry"' "touch:$T/h1-ok" \
        '"type":"run_end"' 'keys:q' --
    assert_exit 0
    for h in h1 h2 h3; do
        assert_state $h healthy
        on $h readlink -f /run/current-system | grep -qx "$good"
        on $h test ! -e /run/fleet/lock
    done
    grep -q '"line":"it stops, as more hosts failed than max_failed allows' "$events"
    # The same run, two activations of h2 under two nonces.
    [ "$(grep '"type":"grant","host":"h2".*"act":"activate"' "$events" |
        grep -o '"nonce":"[^"]*"' | sort -u | wc -l)" = 2 ]
}

@test "stopped and gone on with, it says what the guards may have done meanwhile" {
    inventory h1="$(system good v8)"
    start_update
    await_state 30 h1 probing
    kill -STOP "$operator"
    kill -CONT "$operator"
    await_event 20 '"stream":"fleet","line":"fleet was stopped (Ctrl-Z?) and goes on: '
    end_update
    assert_exit 0
}
