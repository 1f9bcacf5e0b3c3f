#!/usr/bin/env bats
# The ways to a host: login shells, accounts and sudo, addresses, jump hosts, keys that ask,
# networks that are slow, stall or break. One rollout takes all kinds of accounts at once.

load fleet_driver

setup_file() {
    begin_hosts 6 --flavour fish 1 --flavour noisy 2 --flavour ops 3 --flavour opsp 4
    "$testbed" up 1 --first 7 --kind light 3>&-
    load_hosts
    ssh-keygen -q -t ed25519 -N 'a passphrase' -f "$T/locked"
    on h5 'sh -c "cat >>/root/.ssh/authorized_keys"' <"$T/locked.pub"
    begin_stalled
}
teardown_file() { end_hosts; }
setup() { load_hosts; proxies=(); }
teardown() {
    for pid in "${proxies[@]}"; do kill "$pid" 2>/dev/null || true; done
    tell
}

# start_proxy HOST [OPTION...]: sets `port`.
start_proxy() {
    rm -f "$T/ready"
    "$support/tcp_proxy.py" "$T/ready" "$(address "$1"):22" "${@:2}" </dev/null >/dev/null 2>&1 3>&- &
    proxies+=($!)
    while [ ! -s "$T/ready" ]; do sleep 0.05; done
    port=$(<"$T/ready")
    host_key=$(sed -n "s/^$(address "$1") //p" "$TESTBED_KNOWN_HOSTS")
}

# Words of an inventory that reach the host by other addresses than its own.
by() { # HOST ADDRESSES-AS-JSON
    printf '%s\n' "hosts.$1.address=$2" "hosts.$1.host_key=\"$host_key\"" \
        "hosts.$1.health.0.url=\"http://$(address "$1"):8080/health\""
}

# It takes three silent keepalives of 15 s, so it begins first; the last test sees how it ended.
begin_stalled() {
    start_proxy h6 --stall 3000000
    echo "${proxies[0]}" >"$T/stalled.proxy"
    mapfile -t words < <(by h6 "\"127.0.0.1:$port\"")
    inventory=$T/stalled.json events=$T/stalled.events text=$T/stalled.text
    inventory h6="$(system good v4 --paths 40 --bytes 8000000)" "${words[@]}"
    (
        update_status=0
        timeout -k 10 150 "$FLEET" -i "$inventory" --state-dir "$T/state" update --yes --json \
            >"$events" 2>"$text" || update_status=$?
        echo $update_status >"$T/stalled.status"
    ) </dev/null >/dev/null 2>&1 3>&- &
}

@test "fish, a noisy shell, sudo with and without a password, no systemd: all in one rollout" {
    v1=$(system good v1)
    inventory h1="$v1" h2="$v1" h3="$v1" h4="$v1" h5="$v1" h7="$v1"
    update --waves 100% --parallel 6
    assert_exit 0
    for h in h1 h2 h3 h4 h5 h7; do
        assert_state $h healthy
        assert_serves $h v1
    done
    for h in h1 h2 h3 h4 h5; do [ "$(facts $h | grep -c "$v1")" = 3 ]; done
    grep '"host":"h7"' "$events" | grep '"to":"activating"' | grep -q 'the guard is weaker'
    grep '"host":"h7"' "$events" | grep -q 'no systemd here, so no unit was looked at'
    ! grep -q "$(<"$TESTBED_OPSP_PASSWORD_FILE")" "$events" "$text"
}

@test "a build host whose sudo asks for a password builds; without the password nothing is built" {
    inventory h1 h4 'hosts.h1.build={"on": "h4"}'
    fleet build h1
    assert_exit 0
    path=$(sed -n 's/^h1 //p' "$events")
    on h4 test -e "$path/bin/switch-to-configuration"
    inventory h1 h4 'hosts.h1.build={"on": "h4"}' 'hosts.h4.password_command=["false"]'
    fleet build h1
    assert_exit 1
    grep -q 'a build host: .*false' "$text"
}

@test "without systemd too a bad version goes back" {
    inventory h7="$(system http-500 v2)" 'defaults.policy.healthy_deadline="3s"'
    update
    assert_exit 3
    assert_state h7 rolled_back
    assert_serves h7 v1
}

@test "sudo that asks, without a password: failed with the remedy, nothing touched" {
    inventory h4="$(system good v2)" 'hosts.h4.password_command=null'
    update
    assert_exit 3
    assert_state h4 failed '*' password
    assert_serves h4 v1
}

@test "an account that is not root, without sudo" {
    inventory h3="$(system good v2)" 'hosts.h3.sudo=false'
    update
    assert_exit 3
    assert_state h3 failed not-root 'sudo: true'
}

@test "of several addresses the one that answers, IPv6 among them" {
    start_proxy h1 --listen ::1
    mapfile -t words < <(by h1 "[\"127.0.0.1:1\", \"[::1]:$port\"]")
    inventory h1="$(system good v2)" "${words[@]}"
    update
    assert_exit 0
    assert_state h1 healthy
    assert_serves h1 v2
}

@test "through a jump host, with two logins there at most" {
    inventory h2="$(system good v2)" h5 'hosts.h2.jump="h5"'
    before=$(logins h5)
    update h2
    assert_exit 0
    assert_state h2 healthy
    assert_serves h2 v2
    [ "$(logins h5)" -le $((before + 2)) ]
}

@test "a slow network: 100 ms there and back cost a second or two, not a minute" {
    start_proxy h1 --delay 50
    mapfile -t words < <(by h1 "\"127.0.0.1:$port\"")
    inventory h1="$(system good v3 --paths 100 --bytes 1000000)" "${words[@]}"
    SECONDS=0
    update
    assert_exit 0
    assert_state h1 healthy
    [ $SECONDS -lt 30 ]
}

@test "a connection cut in mid-copy goes on where it was" {
    start_proxy h2 --cut 3000000
    mapfile -t words < <(by h2 "\"127.0.0.1:$port\"")
    inventory h2="$(system good v3 --paths 40 --bytes 8000000)" "${words[@]}"
    update
    assert_exit 0
    assert_state h2 healthy
    grep -q '"line":"the connection was lost' "$events"
}

@test "an encrypted key is asked for at the terminal, before the dashboard takes it" {
    inventory h5="$(system good v2)" "hosts.h5.identity_file=\"$T/locked\""
    status=0
    # With CI set nothing ever asks.
    env -u CI TERM=xterm-256color timeout 60 "$support/answer_tty.py" 'a passphrase' "$FLEET" \
        -i "$inventory" --state-dir "$T/state" update --tui h5 >"$text" 2>&1 </dev/null || status=$?
    assert_exit 0
    local asked
    asked=$(<"$text")
    asked=${asked%%$'\e[?1049h'*}
    [[ $asked == *"$T/locked"* ]]
    [ ${#asked} -lt "$(wc -c <"$text")" ] # else the screen was never taken
    run -1 grep -q 'a passphrase' "$text"
    assert_serves h5 v2
    # Without one it says so and reaches nothing.
    inventory h5="$(system good v3)" "hosts.h5.identity_file=\"$T/locked\""
    update
    [ "$status" != 0 ]
    assert_state h5 unreachable '*' locked
    assert_serves h5 v2
}

# A key that only an agent has, and whose every signature needs a person (see slow_agent.py); h5 takes it.
begin_agent() { # [SUFFIX]
    # Its private half is the agent's alone.
    [ -f "$T/touch.pub" ] || {
        ssh-keygen -q -t ed25519 -N '' -f "$T/touch"
        mv "$T/touch" "$T/touch.kept"
        on h5 'sh -c "cat >>/root/.ssh/authorized_keys"' <"$T/touch.pub"
    }
    agent=$T/agent-$BATS_TEST_NUMBER${1:-}
    mkdir "$agent"
    ssh-agent -a "$agent/real" >"$agent/env"
    proxies+=("$(sed -n 's/^SSH_AGENT_PID=\([0-9]*\);.*/\1/p' "$agent/env")")
    SSH_AUTH_SOCK=$agent/real ssh-add -q "$T/touch.kept"
    mkfifo "$agent/life"
    "$support/slow_agent.py" "$agent/socket" "$agent/real" "$agent" <>"$agent/life" 3>&- &
    proxies+=($!)
    until [ -S "$agent/socket" ]; do sleep 0.05; done
    export SSH_AUTH_SOCK=$agent/socket
}

@test "an agent that waits for a touch holds up its own host only, and is shown" {
    begin_agent
    inventory h1="$(system good v5)" h2="$(system good v5)" h5="$(system good v5)" \
        "hosts.h5.identity_file=\"$T/touch\""
    start_update --now
    await_state 60 h1 healthy
    await_state 60 h2 healthy
    await_event 10 '"host":"h5".*"stream":"agent","line":"waiting for the SSH agent to sign with '
    run -1 grep -q '"host":"h5".*"to":"building"' "$events"
    [ -s "$agent/asked" ]
    echo yes >"$agent/touch"
    end_update
    assert_exit 0
    assert_state h5 healthy
    assert_serves h5 v5
}

# Two runs, a plan and a status wait for the same touch.
@test "who waits for a touch is said by plain output, by the dashboard and by status" {
    begin_agent
    inventory h5="$(system good v6)" "hosts.h5.identity_file=\"$T/touch\""
    "$FLEET" -i "$inventory" status >"$T/said" 2>&1 </dev/null 3>&- &
    local status_pid=$!
    "$FLEET" -i "$inventory" --state-dir "$T/plain-state" update --plain --dry-run </dev/null >"$T/plan" 2>&1 3>&- &
    local plan_pid=$!
    "$FLEET" -i "$inventory" --state-dir "$T/state" push --plain </dev/null >"$T/plain" 2>&1 3>&- &
    local plain_pid=$!
    tmux -S "$T/tmux" -f /dev/null new-session -d -x 100 -y 30 \
        "env -u CI TERM=tmux-256color '$FLEET' -i '$inventory' --state-dir '$T/tui-state' push --tui" 3>&-
    local wanted="the SSH agent to sign with" end=$((SECONDS + 60))
    until grep -q "^fleet: h5: waiting for $wanted" "$T/said" && grep -q "^h5 .*waiting for $wanted" "$T/plain" &&
        tmux -S "$T/tmux" capture-pane -p | grep -q "waiting for $wanted"; do
        [ $SECONDS -lt $end ] || {
            tail "$T/said" "$T/plain"
            tmux -S "$T/tmux" capture-pane -p
            return 1
        }
        sleep 0.2
    done
    echo yes >"$agent/touch"
    # One of the two may find the other's lock; what counts is that both end.
    wait "$status_pid" "$plan_pid" "$plain_pid" || true
    tmux -S "$T/tmux" kill-server || true
}

@test "an agent that refuses, dies or talks nonsense: its host is unreachable and says so, the others go on" {
    local does version=0
    for does in no die garbage; do
        version=$((version + 1))
        begin_agent "$does"
        echo "$does" >"$agent/touch"
        inventory h1="$(system good "v7.$version")" h5="$(system good v7)" \
            "hosts.h5.identity_file=\"$T/touch\"" 'defaults.policy.max_unreachable=1'
        update --now
        assert_exit 0
        assert_state h1 healthy
        assert_state h5 unreachable auth-failed
        grep -q '"host":"h5".*"stream":"agent"' "$events"
    done
}

@test "a connection that stalled in mid-copy was noticed, and another one went on" {
    inventory=$T/stalled.json events=$T/stalled.events text=$T/stalled.text
    local end=$((SECONDS + 100))
    until [ -s "$T/stalled.status" ]; do
        [ $SECONDS -lt $end ]
        sleep 0.2
    done
    kill "$(<"$T/stalled.proxy")"
    status=$(<"$T/stalled.status")
    assert_exit 0
    assert_state h6 healthy
    grep -q '"line":"the connection was lost' "$events"
    assert_host h6 "$(system good v4 --paths 40 --bytes 8000000)" 2
}
