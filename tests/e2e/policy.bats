#!/usr/bin/env bats
# The policy's fields and the probes' on real hosts, each through the built program as an inventory
# says it. What the rules are in full is tests/unit/test_rollout.c's and test_gate.c's to hold.

load fleet_driver

setup_file() {
    begin_hosts 6
    (cd "$T" && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
        -keyout tls.key -out tls.crt -days 20 -subj /CN=127.0.0.1 \
        -addext subjectAltName=IP:127.0.0.1 2>tls.log)
    "$support/health_server.py" "$T/ports" "$T/tls.crt" "$T/tls.key" 3>&- &
    echo $! >"$T/server.pid"
    local end=$((SECONDS + 30))
    until [ -s "$T/ports" ] || [ $SECONDS -ge $end ]; do sleep 0.1; done
}
teardown_file() {
    kill "$(cat "$T/server.pid")"
    end_hosts
}
setup() {
    load_hosts
    read -r http https <"$T/ports"
}
teardown() { tell; }

# settings WORD...: an inventory in which each of the six hosts is to run another system than it
# does, with no waiting. A word is one of edit_inventory.py's.
settings() {
    local hosts=() h now next
    for h in h1 h2 h3 h4 h5 h6; do
        now=$(on $h readlink -f "$profile")
        next=$(system good v1)
        [ "$now" != "$next" ] || next=$(system good v2)
        hosts+=("$h=$next")
    done
    inventory "${hosts[@]}" 'defaults.policy.min_healthy_time="0s"' \
        'defaults.policy.startup_grace="0s"' "$@"
}

most() { event most "$@"; }

@test "groups: exclusive hosts one by one, a tag's hosts as many as it says, the others side by side" {
    settings 'defaults.policy.waves=["100%"]' 'defaults.policy.max_parallel=6' \
        'hosts.h1.policy.exclusive="quorum"' 'hosts.h2.policy.exclusive="quorum"' \
        'hosts.h3.tags=["pair"]' 'hosts.h4.tags=["pair"]' 'hosts.h5.tags=["pair"]' \
        'hosts.h6.tags=["pair"]' 'tags.pair.policy={"max_parallel": 2, "copy_parallel": 1}' \
        'hosts.h1.policy.min_healthy_time="2s"' 'hosts.h3.policy.min_healthy_time="2s"'
    update
    assert_exit 0
    [ "$(most h1 h2)" = 1 ]
    [ "$(most h3 h4 h5 h6)" = 2 ]
    [ "$(most h1 h2 h3 h4 h5 h6)" = 3 ]
}

@test "waves by tag and by size, copied all before the first activation, in the inventory's order" {
    settings 'defaults.policy.waves=[{"tag": "first"}, "50%"]' 'defaults.policy.prestage="all"' \
        'defaults.policy.order="inventory"' 'hosts.h4.tags=["first"]'
    update --parallel 6
    assert_exit 0
    grep -q '"waves":\[\["h4"\],\["h1","h2"\],\["h3","h5","h6"\]\]' "$events"
    activated=$(grep -n -m 1 '"to":"activating"' "$events" | cut -d: -f1)
    staged=$(grep -n '"to":"staged"' "$events" | tail -n 1 | cut -d: -f1)
    [ "$staged" -lt "$activated" ]
}

@test "rollback-wave takes its own wave back, and max_failed may be a share" {
    settings 'defaults.policy.waves=[1, "50%"]' 'defaults.policy.order="inventory"' \
        'defaults.policy.on_failure="rollback-wave"' 'defaults.policy.max_failed="10%"' \
        'hosts.h3.policy.healthy_deadline="2s"' \
        "hosts.h3.health=[{\"name\": \"web\", \"type\": \"http\", \"url\": \"http://127.0.0.1:$http/code/500\"}]" \
        'hosts.h3.policy.tolerate_preexisting=false'
    before=$(on h2 readlink -f "$profile")
    update --parallel 6
    assert_exit 3
    assert_state h1 healthy
    assert_state h3 rolled_back healthy-deadline '500'
    assert_state h2 rolled_back taken-back 'more hosts failed than max_failed allows'
    [ "$(on h2 readlink -f "$profile")" = "$before" ]
    for h in h4 h5 h6; do assert_state $h skipped budget; done
}

@test "what failed before is told and not counted; with tolerate_preexisting false it counts" {
    settings 'hosts.*.health=[{"name": "gone", "type": "tcp", "port": 1, "interval": "300ms"}]' \
        'defaults.policy.fail_fast=true' 'hosts.h2.policy.tolerate_preexisting=false'
    update --waves 100% --parallel 6 --policy max_failed=6 --on h1,h2
    assert_exit 3
    assert_state h1 healthy
    grep -q '"host":"h1",.*"ok":false,"detail":"connection refused (failed before' "$events"
    assert_state h2 rolled_back probe-failed 'tcp gone: connection refused 3 times; the old system'
}

# bake HOST WORD...: a run over the host whose flag goes up while it bakes.
bake() {
    local host=$1
    shift
    : >"$events"
    "$FLEET" -i "$inventory" --state-dir "$T/state" "$@" --yes --json "$host" >"$events" \
        2>"$text" </dev/null 3>&- &
    operator=$!
    await_event 60 '"type":"pause".*"reason":"bake"'
    on "$host" touch /var/tmp/flag
    end_update
    on "$host" rm /var/tmp/flag
}

@test "a bake that goes wrong: back once, at once, whatever the old system's probes say" {
    local probe='["/bin/sh", "-c", "! test -e /var/tmp/flag"]'
    settings 'defaults.policy.bake="3s"' \
        "hosts.*.health=[{\"name\": \"flag\", \"type\": \"command\", \"run\": $probe, \"interval\": \"200ms\"}]"
    for h in h1 h2 h3; do local "$h=$(on $h readlink -f "$profile")"; done
    bake h1 update
    assert_exit 3
    assert_state h1 rolled_back bake 'flag: exit status 1 3 times, as its wave was probed again; the old'
    [ "$(on h1 readlink -f "$profile")" = "$h1" ]
    # --action test: the profile was never touched.
    bake h2 update --action test
    assert_exit 3
    assert_state h2 rolled_back bake
    [ "$(event states h2 | tr ' ' '\n' | grep -c rolling_back)" = 1 ]
    [ "$(on h2 readlink -f /run/current-system)" = "$h2" ]
    # After the update's own reboot the lock is a new one.
    bake h3 update --reboot always
    assert_exit 3
    assert_state h3 rolled_back bake
    [ "$(on h3 readlink -f "$profile")" = "$h3" ]
    # A reboot is not undone.
    bake h4 reboot
    assert_exit 3
    assert_state h4 failed bake 'left running'
    for h in h1 h2 h3 h4; do on $h test ! -e /run/fleet/lock; done
}

@test "healthy once is not healthy: a service that ends after its commit, while the wave goes on" {
    local probe='["/bin/sh", "-c", "test -e /var/tmp/go"]'
    settings 'defaults.policy.waves=[{"tag": "first"}]' 'hosts.h3.tags=["first"]' \
        'hosts.*.health.0.interval="300ms"' 'hosts.h2.policy.tolerate_preexisting=false' \
        'hosts.h2.policy.healthy_deadline="120s"' \
        "hosts.h2.health=[{\"name\": \"go\", \"type\": \"command\", \"run\": $probe, \"interval\": \"200ms\"}]"
    before=$(on h1 readlink -f "$profile")
    start_update --on h1,h2,h3 --parallel 2
    await_state 60 h1 healthy
    await_state 60 h2 probing
    # A host is let go with its wave, not before and not with the run.
    on h1 test -e /run/fleet/lock
    on h3 "timeout 60 sh -c 'while test -e /run/fleet/lock; do sleep 0.2; done'"
    on h1 systemctl stop web
    on h2 touch /var/tmp/go
    end_update
    on h2 rm /var/tmp/go
    assert_exit 3
    assert_state h1 rolled_back bake 'times, as its wave was probed again'
    for h in h2 h3; do assert_state $h healthy; done
    [ "$(on h1 readlink -f "$profile")" = "$before" ]
    for h in h1 h2; do on $h test ! -e /run/fleet/lock; done
    grep '^h1 ' "$text" | grep -q 'probed again'
}

# probed HOST PROBE: the probe, in JSON, is the host's only one.
probed() {
    echo "hosts.$1.health=[$(sed 's/^{/{"name": "p", "interval": "200ms", "failures": 1, "timeout": "2s", /' <<<"$2")]"
}

@test "probes that pass, here and from the target" {
    settings "$(probed h1 "{\"type\": \"http\", \"url\": \"http://127.0.0.1:$http/told\", \"method\": \"POST\",
            \"headers\": {\"X-Told\": \"by \${name}\"}, \"body_regex\": \"^POST by h1$\"}")" \
        "$(probed h2 "{\"type\": \"http\", \"url\": \"https://127.0.0.1:$https/code/404\", \"status\": 404,
            \"tls_verify\": false, \"tls_min_days\": 10, \"from\": \"target\"}")" \
        "$(probed h3 "{\"type\": \"metric\", \"url\": \"http://127.0.0.1:$http\", \"query\": \"5\",
            \"above\": 4, \"below\": 6}")" \
        "$(probed h4 '{"type": "command", "run": ["sh", "-c", "seq 1 30000; test \"$0 $1\" = \"a  b h4\"", "a  b", "${name}"]}')" \
        "$(probed h5 '{"type": "tcp", "port": 8080, "from": "target"}')" \
        "$(probed h6 '{"type": "systemd", "units": ["we*.service"], "ignore": ["nothing-*"]}')"
    update --waves 100% --parallel 6 --policy tolerate_preexisting=false
    assert_exit 0
    for h in h1 h2 h3 h4 h5 h6; do assert_state $h healthy; done
}

@test "probes that fail say what they saw" {
    settings "$(probed h1 "{\"type\": \"http\", \"url\": \"https://127.0.0.1:$https/\"}")" \
        "$(probed h2 "{\"type\": \"http\", \"url\": \"https://127.0.0.1:$https/\", \"tls_verify\": false,
            \"tls_min_days\": 30}")" \
        "$(probed h3 "{\"type\": \"metric\", \"url\": \"http://127.0.0.1:$http\", \"query\": \"nan\", \"below\": 9}")" \
        "$(probed h4 "{\"type\": \"metric\", \"url\": \"http://127.0.0.1:$http\", \"query\": \"none\", \"below\": 9}")" \
        "$(probed h5 "{\"type\": \"http\", \"url\": \"http://127.0.0.1:$http/slow\"}")" \
        "$(probed h6 '{"type": "command", "run": ["sh", "-c", "echo \"no  luck\"; exit 7"]}')"
    update --waves 100% --parallel 6 --policy max_failed=6 --policy fail_fast=true \
        --policy tolerate_preexisting=false
    assert_exit 3
    assert_state h1 rolled_back probe-failed 'http p: SSL certificate problem: self-signed'
    assert_state h2 rolled_back probe-failed 'the certificate expires in 19 days, wanted 30'
    assert_state h3 rolled_back probe-failed 'metric p: the value is not a number'
    assert_state h4 rolled_back probe-failed 'metric p: no data'
    assert_state h5 rolled_back probe-failed 'http p: no answer within 2.0 s'
    assert_state h6 rolled_back probe-failed 'command p: exit status 7: no  luck'
}
