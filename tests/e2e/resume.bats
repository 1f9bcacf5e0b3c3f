#!/usr/bin/env bats
# A run whose operator was killed goes on with `fleet resume`: the hosts are asked, nothing is
# repeated, nobody is lost. Each state of a host's way and each record of the journal is walked by
# tests/faults/walk; here is what takes several hosts, or a close look.

load resume_driver

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

@test "what failed before the change is not blamed by the one who resumes" {
    fresh good h1
    inventory h1="$new" 'defaults.policy.min_healthy_time="3s"' \
        'hosts.h1.health=[{"name": "closed", "type": "tcp", "port": 9, "interval": "500ms"},
            {"name": "web", "type": "http", "url": "http://${address}:8080/health", "interval": "500ms"}]'
    start_update
    die_at h1 probing
    resume
    assert_exit 0
    assert_state h1 healthy
    [ "$(grants h1 activate)" = 1 ]
    journal | grep -q '"type":"probe","host":"h1".*"name":"closed","ok":false'
}

@test "a version that is bad is judged by the one who resumes, too" {
    fresh dies-after-5s h1
    inventory h1="$new" 'defaults.policy.min_healthy_time="8s"'
    start_update
    die_at h1 probing
    # The version shows its fault while nobody looks.
    local end=$((SECONDS + 60))
    until [ "$(on h1 systemctl show -P ActiveState web.service)" = failed ]; do
        [ $SECONDS -lt $end ]
        sleep 0.2
    done
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

@test "status names the run that was cut off; another machine is told who holds the hosts" {
    fresh good h1 h2
    inventory h1="$new" h2="$(system good "$version" h2)" 'defaults.policy.min_healthy_time="3s"'
    start_update --waves 1,100%
    await_state 40 h2 staged
    die_at h1 probing
    fleet status
    grep -q "run $(run_of) (switch) was interrupted; 2 of 2 hosts are still to be done: h1, h2. Go on with .fleet resume $(run_of)" "$text"
    fleet status --json
    run -1 grep -q 'was interrupted' "$text"
    for name in "$(run_of)" ''; do
        status=0
        "$FLEET" -i "$inventory" --state-dir "$T/elsewhere" resume --no-input $name >"$events" 2>"$text" </dev/null 3>&- || status=$?
        assert_exit 7
        grep -Eq "^h1: run $(run_of) of root@.*: its guard waits for the new version to be confirmed, and goes back by itself in [0-9]+ s; its lock holds for [0-9]+ s more" "$text"
        grep -Eq "^h2: run $(run_of) of root@.*: its lock holds for [0-9]+ s more" "$text"
        grep -q "fleet resume $(run_of). there takes it up" "$text"
    done
    # An attempt meanwhile finds the hosts held: no later run that makes this one a thing of the past.
    local dead
    dead=$(run_of)
    update
    assert_exit 7
    fleet status
    grep -q "Go on with .fleet resume $dead" "$text"
    fleet resume --no-input
    assert_exit 0
    grep -q 'is finished (locked): nothing to do' "$text"
    grep -q "Go on with .fleet resume $dead" "$text"
    resume "$dead"
    assert_exit 0
    for h in h1 h2; do assert_state $h healthy; done
    fleet status
    run -1 grep 'fleet resume' "$text"
    status=0
    "$FLEET" -i "$inventory" --state-dir "$T/elsewhere" resume --no-input >"$events" 2>"$text" </dev/null 3>&- || status=$?
    assert_exit 2
    grep -q 'no host that answered knows of such a run' "$text"
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
    timeout -k 15 300 "$FLEET" --state-dir "$T/state" resume --no-input --json >"$events" 2>"$text" </dev/null 3>&- ||
        status=$?
    assert_exit 0
    for h in h1 h2 h3; do assert_state $h healthy; done
    grep -q '"type":"wave_start","wave":3' "$events"
    resume --waves 1
    assert_exit 2
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
