#!/usr/bin/env bats
# The operator dies with kill -9 at each point after the grant: the host ends right alone. Before
# the commit that is the old system, once the commit has begun the new one.

load fleet_driver

setup_file() { begin_hosts 8; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

# A program of the host's old system that takes its time first, so that a kill can hit that moment.
slow_program() { # HOST PROGRAM SECONDS
    on "$1" /bin/sh -s <<SCRIPT
cd $v0/sw/bin && true_one=\$(readlink $2) && rm $2 && printf '#!/bin/sh\nsleep $3\nexec %s "\$@"\n' "\$true_one" >$2
chmod 755 $2
SCRIPT
}

# start_one HOST SYSTEM [WORD...]: a rollout of its own with its own files; several run at once.
start_one() {
    inventory=$T/$1.json events=$T/$1.events text=$T/$1.text
    inventory "$1=$2" 'defaults.policy.confirm_timeout="6s"' \
        'defaults.policy.activate_timeout="5s"' "${@:3}"
    start_update
    operators[${1#h}]=$operator
}

# kill_at HOST STATE [SECONDS]: so long after it got there.
kill_at() {
    events=$T/$1.events
    await_state 40 "$1" "$2"
    sleep "${3:-0}"
    kill -9 "${operators[${1#h}]}"
    wait "${operators[${1#h}]}" || true
}

# Until the guard has decided. The lock of a dead operator lapses in its own time: taken away here.
await_alone() { # HOST
    local end=$((SECONDS + 40))
    until on "$1" 'sh -c "! systemctl is-active -q fleet-guard && ! test -e /var/lib/fleet/guard"' \
        2>/dev/null; do
        [ $SECONDS -lt $end ] || { echo "the guard of $1 does not end" >&2; return 1; }
        sleep 0.5
    done
    on "$1" rm -f /run/fleet/lock
}

@test "killed while activating, confirming, probing, committing: each host ends right" {
    slow_program h4 nix-env 2
    # Each is killed before the next is started: on a busy machine the moment would pass otherwise.
    start_one h1 "$(system hangs v1)"
    kill_at h1 activating
    start_one h2 "$(system breaks-sshd v1)"
    kill_at h2 confirming
    start_one h3 "$(system good v1)" 'hosts.h3.policy.min_healthy_time="60s"'
    kill_at h3 probing
    start_one h5 "$(system http-500 v1)"
    kill_at h5 probing
    start_one h6 "$(system dies-after-5s v1)" 'hosts.h6.policy.min_healthy_time="60s"'
    kill_at h6 probing
    start_one h4 "$(system good v1)"
    kill_at h4 committing 1
    for h in h1 h2 h3 h5 h6; do
        await_alone $h
        assert_host $h "$v0" 1
        assert_serves $h v0
    done
    await_alone h4
    assert_host h4 "$(system good v1)" 2
    assert_serves h4 v1
}

@test "what a dead operator left is no hindrance: the same update goes through" {
    inventory h3="$(system good v1)" h4="$(system good v1)"
    update --waves 100%
    assert_exit 0
    assert_state h3 healthy
    assert_state h4 unchanged
}

@test "nix-collect-garbage during the copy, while staged and while probing: still healthy" {
    inventory h7="$(system good v3 --paths 400 --bytes 40000000)" h8="$(system good v1)" \
        'defaults.copy.max_rate="8MB"' 'hosts.h7.policy.min_healthy_time="3s"' \
        'hosts.h8.policy.min_healthy_time="3s"' \
        'defaults.policy.waves=[1, "100%"]' 'defaults.policy.prestage="all"' \
        'defaults.policy.order="inventory"'
    start_update
    collect() { # HOST: as often as it goes, its count in a file
        while [ -e "$T/collecting" ]; do
            on "$1" nix-collect-garbage >"$T/gc-$1" 2>&1 && echo >>"$T/collected-$1" || echo >>"$T/gc-failed"
            sleep 0.2
        done
    }
    touch "$T/collecting"
    await_state 30 h7 staging
    collect h7 &
    collect h8 &
    end_update
    rm "$T/collecting"
    wait
    assert_exit 0
    assert_state h7 healthy
    assert_state h8 healthy
    [ "$(wc -l <"$T/collected-h7")" -ge 4 ]
    [ "$(wc -l <"$T/collected-h8")" -ge 4 ]
    assert_host h7 "$(system good v3 --paths 400 --bytes 40000000)" 2
    on h7 nix-store --verify --check-contents >"$T/verify" 2>&1
    on h7 'sh -c "nix-store -qR /run/current-system | xargs nix-store --check-validity"'
}
