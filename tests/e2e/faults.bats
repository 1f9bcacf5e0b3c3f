#!/usr/bin/env bats
# What goes wrong between the activation and the commit: each host is back on its old system by
# itself, within its confirm time-out, while another session to it was open all along. Hosts with
# different fates share one rollout, so that their waits pass at the same time.

load fleet_driver

setup_file() { begin_hosts 8 --net 2; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() {
    for pid in "${sessions[@]}"; do kill "$pid" 2>/dev/null || true; done
    tell
}

together=(--waves '100%' --parallel 8 --policy max_failed=8 --policy 'on_failure="rollback-host"')

# keep_session HOST...: another session to each, open from here on. Words go in and out by fifos,
# both held open so that none is lost.
keep_session() {
    local host in out
    for host in "$@"; do
        rm -f "$T/$host".{in,out}
        mkfifo "$T/$host.in" "$T/$host.out"
        exec {in}<>"$T/$host.in" {out}<>"$T/$host.out"
        # The redirections inside: what runs in the background has no standard input otherwise.
        (exec "$testbed" ssh "${host#h}" cat <&$in >&$out 2>/dev/null 3>&-) &
        sessions+=($!)
        session_in[${host#h}]=$in session_out[${host#h}]=$out
        session_answers "$host"
    done
}

session_answers() { # HOST
    local word=word$RANDOM said=''
    echo "$word" >&"${session_in[${1#h}]}"
    read -r -t 5 -u "${session_out[${1#h}]}" said || true
    [ "$said" = "$word" ] || { echo "the other session to $1 says '$said'" >&2; return 1; }
}

kill_guard_when_probing() { # HOST
    await_state 30 "$1" probing
    on "$1" systemctl kill --kill-who=main -s KILL fleet-guard.service
}

cut_power_when_probing() { # HOST
    await_state 30 "$1" probing
    "$testbed" down "${1#h}"
    "$testbed" start "${1#h}"
}

@test "breaks sshd, no network, guard killed, power cut: each back on its old system" {
    inventory h1="$(system breaks-sshd v1)" h2="$(system no-network v1)" \
        h3="$(system good v1)" h4="$(system good v1)" h5="$(system good v1)" \
        'hosts.h3.policy.min_healthy_time="14s"' 'hosts.h4.policy.min_healthy_time="14s"' \
        'hosts.h4.health.0.failures=60'
    keep_session h1 h3
    start_update "${together[@]}"
    kill_guard_when_probing h3 &
    killer=$!
    cut_power_when_probing h4 &
    cutter=$!
    wait $killer
    wait $cutter
    await_state 40 h1 confirming
    session_answers h1
    end_update
    assert_exit 3
    assert_state h1 rolled_back confirm-timeout
    assert_state h2 rolled_back confirm-timeout
    assert_state h3 rolled_back guard-killed
    assert_state h4 rolled_back guard-gone
    assert_state h5 healthy
    session_answers h1
    session_answers h3
    for h in h1 h2 h3 h4; do
        assert_host $h "$v0" 1
        assert_serves $h v0
    done
    assert_serves h5 v1
}

@test "the TCP connection cut in mid-activation disturbs nothing" {
    # A slow unit keeps the activation going; every session of sshd's is then ended.
    inventory h6="$(system good v1)"
    on h6 /bin/sh -s <<'SCRIPT'
mkdir -p /usr/local/lib/systemd/system/multi-user.target.wants
cat >/usr/local/lib/systemd/system/slow.service <<UNIT
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sleep 4
UNIT
ln -s ../slow.service /usr/local/lib/systemd/system/multi-user.target.wants/slow.service
SCRIPT
    before=$(logins h6)
    start_update
    await_state 30 h6 activating
    sleep 1
    # The test's own session is the youngest, so it goes last.
    on h6 "sh -c 'for pid in \$(pgrep -f ^sshd:.root | sort -n); do kill -9 \$pid; done'" || true
    end_update
    assert_exit 0
    [[ $(event states h6) == *'staged activating confirming probing committing healthy' ]]
    assert_state h6 healthy
    assert_host h6 "$(system good v1)" 2
    grep -q '"line":"the connection was lost' "$events"
    # Two as ever, one more after the cut, and the test's own two.
    [ "$(logins h6)" = $((before + 5)) ]
}

@test "a power cut in mid-activation ends in the old system" {
    inventory h7="$(system hangs v1)" 'hosts.h7.policy.activate_timeout="20s"'
    start_update
    await_event 30 'setting up /etc\|activating the configuration'
    "$testbed" down 7
    "$testbed" start 7
    end_update
    assert_exit 3
    assert_state h7 rolled_back
    assert_host h7 "$v0" 1
}

@test "an activation that hangs is ended, a crash loop and a 500 are seen: all back" {
    inventory h1="$(system hangs v2)" h3="$(system crash-loop v2)" h4="$(system http-500 v2)" \
        h7="$(system good v2)" 'hosts.h1.policy.activate_timeout="4s"' \
        'hosts.h3.policy.min_healthy_time="6s"' 'hosts.h3.health=[]' \
        'hosts.h4.policy.healthy_deadline="4s"'
    update "${together[@]}"
    assert_exit 3
    assert_state h1 rolled_back activate-timeout
    assert_state h3 rolled_back '*' web.service
    assert_state h4 rolled_back '*' 500
    assert_state h7 healthy
    for h in h1 h3 h4; do
        assert_host $h "$v0" 1
        assert_serves $h v0
    done
}

@test "a host that freezes while it is probed is back on its old system when it thaws" {
    inventory h8="$(system good v1)" 'hosts.h8.policy.min_healthy_time="60s"' \
        'defaults.policy.confirm_timeout="5s"' 'defaults.policy.healthy_deadline="90s"'
    start_update
    await_state 30 h8 probing
    "$testbed" freeze 8
    sleep 8
    "$testbed" thaw 8
    end_update
    assert_exit 3
    assert_state h8 rolled_back
    assert_host h8 "$v0" 1
}
