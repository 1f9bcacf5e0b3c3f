#!/usr/bin/env bats
# A run that was told to wait or to leave goes on with `fleet promote` and `fleet resume`: signals,
# and waves that wait for promotion.

load resume_driver

@test "promote: without a terminal a run waits by leaving, with its locks let go" {
    fresh good h1 h2
    update --waves 1,100% --policy 'promote="manual"'
    assert_exit 6
    assert_state h1 healthy
    run -1 grep '"type":"host_state","host":"h2".*"to":"skipped"' "$events"
    run -1 on h2 test -e /run/fleet/lock
    grep -q "fleet promote" "$text"
    fleet history
    grep -q paused "$events"
    resume
    assert_exit 6
    logged_in=$(logins h1)
    fleet promote --no-input --json "$(run_of)"
    assert_exit 0
    assert_state h2 healthy
    [ "$(logins h1)" = "$logged_in" ]
    [ "$(grants h1 activate)" = 1 ]
    assert_seq_goes_on
    fleet promote "$(run_of)"
    assert_exit 0
    grep -q 'nothing to do' "$text"
}

@test "promote: a run that waits at a terminal is released from another one" {
    fresh good h1 h2
    local last
    last=$(run_of)
    env -u CI script -qec "$FLEET -i $inventory --state-dir $T/state update --yes --plain \
        --waves 1,100% --policy promote='\"manual\"'" "$text" >"$events" 2>&1 </dev/null 3>&- &
    operator=$!
    end=$((SECONDS + 120))
    until [ "$(run_of)" != "$last" ] && journal | grep -q '"type":"pause"'; do
        [ $SECONDS -lt $end ]
        sleep 0.1
    done
    sleep 1
    kill -0 "$operator"
    events=$events.2 text=$text.2 fleet promote "$(run_of)"
    assert_exit 0
    end_update
    operator=
    assert_exit 0
    assert_serves h2 "$version"
    [ "$(journal | grep -c '"type":"promote"')" = 1 ]
}

@test "the first Ctrl-C drains; resume begins with the ones that were put off" {
    fresh good h1 h2
    start_update --waves 1,100%
    await_state 40 h1 probing
    kill -INT "$operator"
    end_update
    operator=
    assert_exit 130
    assert_state h1 healthy
    assert_state h2 skipped stopped
    grep -q "fleet resume" "$text"
    fleet history
    grep -q interrupted "$events"
    fleet show
    grep -q "fleet resume $(run_of)" "$events"
    resume
    assert_exit 0
    assert_state h2 healthy
    [ "$(grants h1 activate)" = 1 ]
}

@test "the second leaves within ten seconds with the guards armed; resume takes them over" {
    fresh good h1
    inventory h1="$new" 'defaults.policy.min_healthy_time="6s"'
    start_update
    await_state 40 h1 probing
    kill -INT "$operator"
    sleep 0.2
    began=$SECONDS
    kill -INT "$operator"
    end_update
    operator=
    assert_exit 130
    [ $((SECONDS - began)) -le 10 ]
    grep -q "fleet resume" "$text"
    grep -q "h1" "$text"
    on h1 systemctl is-active fleet-guard.service
    resume
    assert_exit 0
    assert_state h1 healthy
    [ "$(grants h1 activate)" = 1 ]
    assert_host h1 "$new" $((before + 1))
}

@test "the third leaves at once, and says how to go on" {
    fresh good h1 h2
    inventory h1="$new" h2="$(system good "$version" h2)" 'defaults.policy.min_healthy_time="6s"'
    start_update --waves 1,100%
    await_state 40 h2 staged
    await_state 40 h1 probing
    "$testbed" freeze 2 # its lock can't be let go: that is waited for
    kill -INT "$operator"
    sleep 0.3
    kill -INT "$operator"
    sleep 0.7
    kill -0 "$operator"
    began=$SECONDS
    kill -INT "$operator"
    end_update
    operator=
    # The second would have taken ten.
    [ $((SECONDS - began)) -le 5 ]
    "$testbed" thaw 2
    assert_exit 130
    grep -q "fleet resume" "$text"
    resume
    assert_exit 0
    for h in h1 h2; do assert_state $h healthy; done
    assert_host h1 "$new" $((before + 1))
}
