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
    python3 -u -m http.server --bind 127.0.0.1 --directory "$T/cache" 0 \
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

cache_url() { echo "http://127.0.0.1:$(sed 's/.*port \([0-9]*\).*/\1/' "$T/port")"; }

# with_cache PUSH: the cache's settings for edit_inventory.py.
with_cache() {
    echo "defaults.copy.cache={\"push\": \"$1\", \"substituter\": \"$(cache_url)\",
        \"public_key\": \"$(cat "$T/public")\"}"
}

assert_both() { # VERSION
    assert_exit 0
    for i in 1 2; do
        assert_state "h$i" healthy
        assert_serves "h$i" "$1"
    done
}

@test "compressed: zstd unpacks it there, and where it is missing that is said" {
    on h1 'mv /usr/bin/zstd /usr/bin/zstd.kept'
    on h2 'mv /usr/bin/zstd /usr/bin/zstd.kept && cat >/usr/bin/zstd && chmod +x /usr/bin/zstd' <<'SCRIPT'
#!/bin/sh
echo "$@" >>/run/unpacked
exec /usr/bin/zstd.kept "$@"
SCRIPT
    bring v1 'defaults.copy.compress="zstd"' 'defaults.policy.max_failed=1'
    assert_exit 3
    assert_state h1 failed no-zstd 'copy.compress is "zstd"'
    assert_state h2 healthy
    on h2 'grep -q -e -dc /run/unpacked'
    for h in h1 h2; do on $h 'mv /usr/bin/zstd.kept /usr/bin/zstd'; done
    bring v1 'defaults.copy.compress="zstd"'
    assert_exit 0
    assert_serves h1 v1
    assert_serves h2 v1
}

@test "a cache is filled once, and the hosts fetch from it" {
    record_tools
    # Two systems, so that it isn't the one path that is pushed once.
    bring v2 "$(with_cache "file://$T/cache?secret-key=$T/secret")" "defaults.nix_bin=\"$T/tools\"" \
        "h2=$(system good v2 h2 --paths 3 --bytes 9000000 --content programs)"
    assert_both v2
    [ "$(grep -c '^nix copy \|^nix .* copy ' "$T/calls")" = 1 ]
    # Both have fetched archives, and nothing was left to send.
    [ "$(grep -c 'GET /nar/.* 200' "$T/asked")" -ge 8 ]
    ! grep -q '"type":"copy"' "$events" || return 1
    fleet plan
    assert_exit 0
}

@test "with substitute false they fetch from the cache alone" {
    # What they would ask otherwise: a cache of their own, which has nothing.
    mkdir "$T/cache/own"
    echo 'StoreDir: /nix/store' >"$T/cache/own/nix-cache-info"
    for h in h1 h2; do
        on $h "echo 'substituters = $(cache_url)/own' >>/etc/nix/nix.conf"
    done
    before=$(grep -c 'GET /nar/.* 200' "$T/asked" || true)
    bring v3 "$(with_cache "file://$T/cache?secret-key=$T/secret")" 'defaults.copy.substitute=false'
    assert_both v3
    [ "$(grep -c 'GET /nar/.* 200' "$T/asked")" -gt "$before" ]
    run -1 grep '/own/' "$T/asked"
    bring v6 "$(with_cache "file://$T/cache?secret-key=$T/secret")"
    assert_both v6
    grep -q '/own/' "$T/asked"
    for h in h1 h2; do on $h "sed -i '/^substituters = http/d' /etc/nix/nix.conf"; done
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
