#!/usr/bin/env bats
# A run whose operator is killed, leaves or waits goes on with `fleet resume` and `fleet promote`:
# the hosts are asked, nothing is repeated, nobody is lost. Signals, too.

load fleet_driver

setup_file() { begin_hosts 3; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() {
    [ -z "${operator:-}" ] || kill -9 "$operator" 2>/dev/null || true
    tell || true
    # What failed leaves nothing in the way of the next.
    if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
        for h in h1 h2 h3; do
            on $h systemctl stop fleet-guard.service 2>/dev/null || true
            on $h rm -f /run/fleet/lock
        done
    fi
}

resume() { fleet resume --no-input --json "$@"; }

run_of() { basename "$(ls -d "$T"/state/runs/* 2>/dev/null | tail -n 1)"; } # the latest

journal() { cat "$T/state/runs/$(run_of)/journal.jsonl"; }

# grants HOST ACT: how often the run was granted that.
grants() { journal | grep -c "\"type\":\"grant\",\"host\":\"$1\".*\"act\":\"$2\"" || true; }

generation() { on "$1" readlink $profile | tr -dc 0-9; }

# fresh WORD...: an inventory in which h1 (and whatever is named) gets a version of its own.
fresh() { # VARIANT HOST...
    version=t$BATS_TEST_NUMBER
    local words=() host
    for host in "${@:2}"; do words+=("$host=$(system "$1" "$version" "$host")"); done
    inventory "${words[@]}" 'defaults.policy.min_healthy_time="3s"'
    new=$(system "$1" "$version" "$2")
    old=$(on "$2" readlink -f $profile)
    before=$(generation "$2")
}

die_at() { # HOST STATE
    await_state 40 "$1" "$2"
    kill -9 "$operator"
    wait "$operator" || true
    operator=
}

# await_back HOST: until its guard has taken it back, alone. (Its dead operator's lock stands.)
await_back() {
    local end=$((SECONDS + 30))
    until [ "$(on "$1" readlink -f /run/current-system)" = "$old" ] &&
        ! on "$1" systemctl is-active fleet-guard.service >/dev/null; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.5
    done
}

assert_seq_goes_on() { journal >"$events.all"; "$support/read_events.py" check "$events.all" "$root/fleet.events.schema.json"; }

@test "killed while staged: the waiting host begins where it was, the other is taken over" {
    fresh good h1 h2
    start_update --waves 1,100%
    await_state 40 h2 staged
    die_at h1 probing
    resume
    assert_exit 0
    for h in h1 h2; do
        assert_state $h healthy
        assert_serves $h "$version"
        [ "$(grants $h activate)" = 1 ]
    done
    assert_host h1 "$new" $((before + 1))
    assert_seq_goes_on
}

@test "killed while activating" {
    fresh good h1
    start_update
    die_at h1 activating
    resume
    assert_exit 0
    assert_state h1 healthy
    assert_host h1 "$new" $((before + 1))
    assert_seq_goes_on
}

@test "killed while probing: taken over inside the window, with two logins and no second activation" {
    fresh good h1
    start_update
    die_at h1 probing
    logged_in=$(logins h1)
    resume
    assert_exit 0
    assert_state h1 healthy
    [ "$(grants h1 activate)" = 1 ]
    [ $(($(logins h1) - logged_in)) = 2 ]
    assert_host h1 "$new" $((before + 1))
}

@test "killed while probing, resumed when the guard has gone back: it begins anew" {
    fresh good h1
    start_update
    die_at h1 probing
    await_back h1
    resume
    assert_exit 0
    assert_state h1 healthy
    [ "$(grants h1 activate)" = 2 ]
    assert_host h1 "$new" $((before + 1))
}

@test "killed while committing" {
    fresh good h1
    start_update
    die_at h1 committing
    resume
    assert_exit 0
    assert_state h1 healthy
    [ "$(grants h1 activate)" = 1 ]
    assert_host h1 "$new" $((before + 1))
}

@test "killed while rolling back: it stays one" {
    fresh http-500 h1 h2
    start_update --waves 1,100% --policy 'healthy_deadline="2s"'
    die_at h1 rolling_back
    resume
    assert_exit 3
    assert_state h1 rolled_back
    assert_state h2 skipped budget
    [ "$(grants h1 activate)" = 1 ]
    [ "$(grants h2 activate)" = 0 ]
    assert_host h1 "$old" "$before"
}

@test "a version that is bad is judged by the one who resumes, too" {
    fresh dies-after-5s h1
    inventory h1="$new" 'defaults.policy.min_healthy_time="8s"'
    start_update
    die_at h1 probing
    sleep 6
    resume
    assert_exit 3
    assert_state h1 rolled_back
    [ "$(grants h1 activate)" = 1 ]
    assert_host h1 "$old" "$before"
}

@test "a finished run has nothing to do, a part of its id is enough" {
    fresh good h1
    update
    assert_exit 0
    logged_in=$(logins h1)
    fleet resume "$(run_of)"
    assert_exit 0
    grep -q 'nothing to do' "$text"
    [ "$(logins h1)" = "$logged_in" ]
}

@test "a run that is alive is left alone" {
    fresh good h1
    start_update
    await_state 40 h1 activating
    events=$events.2 text=$text.2 resume
    assert_exit 7
    grep -q 'alive' "$text.2"
    end_update
    operator=
    assert_exit 0
}

@test "a host that is not in the inventory any more is named, and nothing is touched" {
    fresh good h1 h2
    start_update --waves 1,100%
    die_at h1 staging
    cp "$inventory" "$inventory.old"
    inventory h1="$new"
    resume
    assert_exit 2
    grep -q "'h2'" "$text"
    cp "$inventory.old" "$inventory"
    resume
    assert_exit 0
    assert_state h2 healthy
}

@test "the run's own policy and inventory hold, whatever is said now" {
    fresh good h1 h2 h3
    start_update --waves 1,2,100% --parallel 1
    die_at h1 probing
    status=0
    timeout -k 15 75 "$FLEET" --state-dir "$T/state" resume --no-input --json >"$events" 2>"$text" </dev/null 3>&- ||
        status=$?
    assert_exit 0
    for h in h1 h2 h3; do assert_state $h healthy; done
    grep -q '"type":"wave_start","wave":3' "$events"
    resume --waves 1
    assert_exit 2
}

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
    end=$((SECONDS + 40))
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
    [ $((SECONDS - began)) -le 1 ]
    "$testbed" thaw 2
    assert_exit 130
    grep -q "fleet resume" "$text"
    resume
    assert_exit 0
    for h in h1 h2; do assert_state $h healthy; done
    assert_host h1 "$new" $((before + 1))
}

@test "whatever record the journal ends with, the host is not activated twice" {
    fresh good h1
    update
    assert_exit 0
    cp "$T/state/runs/$(run_of)/journal.jsonl" "$T/whole"
    lines=$(wc -l <"$T/whole")
    for ((n = 1; n < lines; n++)); do
        head -n "$n" "$T/whole" >"$T/state/runs/$(run_of)/journal.jsonl"
        # A line that was cut off in the middle is none.
        sed -n "$((n + 1))p" "$T/whole" | head -c 40 >>"$T/state/runs/$(run_of)/journal.jsonl"
        resume
        assert_exit 0
        event end | grep -q '"healthy": 1\|"unchanged": 1'
        ! grep '"to":"activating"' "$events"
        assert_host h1 "$new" $((before + 1))
    done
}

@test "rollback-all: who was healthy before the operator died goes back, too" {
    fresh good h1
    inventory h1="$new" h2="$(system http-500 "$version" h2)" \
        'defaults.policy={"min_healthy_time": "1s", "startup_grace": "1s", "confirm_timeout": "10s",
                          "healthy_deadline": "4s", "on_failure": "rollback-all"}'
    start_update --waves 1,100%
    await_state 40 h1 healthy
    die_at h2 probing
    resume
    assert_exit 3
    assert_state h1 rolled_back
    assert_state h2 rolled_back
    assert_host h1 "$old" "$before"
}

@test "rollback-all: killed while the healthy one goes back" {
    fresh good h1
    inventory h1="$new" h2="$(system http-500 "$version" h2)" \
        'defaults.policy={"min_healthy_time": "1s", "startup_grace": "1s", "confirm_timeout": "10s",
                          "healthy_deadline": "4s", "on_failure": "rollback-all"}'
    start_update --waves 1,100%
    die_at h1 rolling_back
    sleep 2
    resume
    assert_exit 3
    assert_state h1 rolled_back
    assert_host h1 "$old" "$before"
}
