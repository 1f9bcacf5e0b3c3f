#!/usr/bin/env bats
# How systems get to the hosts: compressed, or out of a cache that was filled once. That a copy is
# right, goes on after a break and keeps to its rate is in tests/unit/test_copy*.c, over real Nix.

bats_require_minimum_version 1.5.0

load fleet_driver

setup_file() {
    begin_hosts 2
    nix-store --generate-binary-cache-key fleet-test "$T/secret" "$T/public"
    # One that says which port it got, and what was asked of it.
    mkdir -p "$T/cache"
    PYTHONUNBUFFERED=1 python3 -m http.server --bind 127.0.0.1 --directory "$T/cache" 0 \
        >"$T/port" 2>"$T/asked" 3>&- &
    echo $! >"$T/server"
    for _ in $(seq 600); do grep -q 'port [0-9]' "$T/port" && break; sleep 0.1; done
}
teardown_file() {
    kill "$(cat "$T/server")"
    end_hosts
}
setup() { load_hosts; }
teardown() { tell; }

# bring VERSION WORD...: a new version to both hosts, with words of edit_inventory.py.
bring() {
    local top
    top=$(system good "$1" --paths 3 --bytes 9000000 --content programs)
    inventory "h1=$top" "h2=$top" "${@:2}"
    fleet update --yes --json --waves '100%'
}

# with_cache PUSH: the cache's settings for edit_inventory.py.
with_cache() {
    echo "defaults.copy.cache={\"push\": \"$1\", \"substituter\":
        \"http://127.0.0.1:$(sed 's/.*port \([0-9]*\).*/\1/' "$T/port")\",
        \"public_key\": \"$(cat "$T/public")\"}"
}

assert_both() { # VERSION
    assert_exit 0
    for i in 1 2; do
        assert_state "h$i" healthy
        assert_serves "h$i" "$1"
    done
}

@test "compressed" {
    bring v1 'defaults.copy.compress="zstd"'
    assert_both v1
}

@test "a cache is filled once, and the hosts fetch from it" {
    bring v2 "$(with_cache "file://$T/cache?secret-key=$T/secret")"
    assert_both v2
    # Both have fetched archives, and nothing was left to send.
    [ "$(grep -c 'GET /nar/.* 200' "$T/asked")" -ge 8 ]
    ! grep -q '"type":"copy"' "$events" || return 1
    fleet plan
    assert_exit 0
}

@test "with substitute false they fetch from the cache alone" {
    before=$(grep -c 'GET /nar/.* 200' "$T/asked" || true)
    bring v3 "$(with_cache "file://$T/cache?secret-key=$T/secret")" 'defaults.copy.substitute=false'
    assert_both v3
    [ "$(grep -c 'GET /nar/.* 200' "$T/asked")" -gt "$before" ]
}

@test "what the cache can't give is sent" {
    bring v4 "$(with_cache "file://$T/unsigned")"
    assert_both v4
    grep -q '"type":"copy"' "$events"
}

@test "a cache that can't be filled is said, and everything is sent" {
    bring v5 "$(with_cache file:///proc/nowhere)"
    assert_both v5
    grep -q 'the cache file:///proc/nowhere could not be filled' "$events"
    grep -q '"type":"copy"' "$events"
}
