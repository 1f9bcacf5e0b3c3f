#!/usr/bin/env bats
# The real program against a hundred and a thousand played hosts (tests/scale/hosts): every host ends
# in the right state, under 1,200 descriptors, whatever its neighbours do. No time is asserted.

bats_require_minimum_version 1.5.0

setup_file() {
    : "${FLEET:?the program}" "${FLEET_TEST_PROGRAMS:?the folder with scale_hosts}"
    [ -x "$FLEET_TEST_PROGRAMS/scale_hosts" ] || skip "libssh-dev was missing at build time"
}

setup() {
    play=(python3 "$BATS_TEST_DIRNAME/../support/played_fleet.py" "$BATS_TEST_TMPDIR/fleet")
    result=$BATS_TEST_TMPDIR/result
}

# Memory is the program's as users have it; a sanitizer's own is several times that.
as_users_have_it() {
    local release=$BATS_TEST_DIRNAME/../../build/fleet
    [ ! -x "$release" ] || FLEET=$release
}

# Each argument: a Python expression over `r`, the result, and `host(N)`, the end of host-N.
holds() {
    python3 - "$result" "$@" <<'PYTHON'
import json, sys
r = json.load(open(sys.argv[1]))
host = lambda n: r["ends"].get(f"host-{n}")
reason = lambda n: r["reasons"].get(f"host-{n}")
bad = [e for e in sys.argv[2:] if not eval(e)]
for expression in bad:
    print("does not hold:", expression)
if bad:
    print({k: v for k, v in r.items() if k != "ends"})
sys.exit(1 if bad else 0)
PYTHON
}

@test "a thousand hosts are updated with two handshakes each" {
    as_users_have_it
    "${play[@]}" --hosts 1000 -- update --yes --now --parallel 100 >"$result"
    holds 'r["exit"] == 0' 'r["states"] == {"healthy": 1000}' \
        'r["handshakes"] == 2000' 'r["most_handshakes"] == 2' \
        'r["rss_mb"] < 200'
}

@test "a thousand unchanged hosts are left alone with one handshake each" {
    as_users_have_it
    "${play[@]}" --hosts 1000 --unchanged -- update --yes --now >"$result"
    holds 'r["exit"] == 0' 'r["states"] == {"unchanged": 1000}' 'r["handshakes"] == 1000' \
        'r["rss_mb"] < 200'
}

@test "a hundred hosts get a closure that they lack, some over lines that break or are slow" {
    "${play[@]}" --hosts 100 --packages 20 --package-bytes 65536 \
        --fault dies-in-copy=11-15 --fault slow=21-25 -- \
        update --yes --now --parallel 50 >"$result"
    holds 'r["exit"] == 0' 'r["states"] == {"healthy": 100}'
}

@test "in a hundred hosts each fault ends as it should, and nobody else's end changes" {
    # The connect time-out of silent hosts is the inventory's.
    "${play[@]}" --hosts 100 --packages 3 --package-bytes 4096 --connect-timeout 3s \
        --fault refuses=1-3 --fault silent=4-6 --fault garbage=7-8 --fault drops-in-kex=9-10 \
        --fault slow=11-15 --fault dies-in-copy=16-20 --fault cut-in-activation=21-25 \
        --fault fails-activation=26-28 --fault breaks-unit=29-31 --fault full=32-33 -- \
        update --yes --now --parallel 50 --policy max_unreachable=100 --policy max_failed=100 \
        >"$result"
    holds 'r["exit"] == 3' \
        'all(host(n) == "unreachable" for n in range(1, 11))' \
        'all(reason(n) == "connection-refused" for n in range(1, 4))' \
        'all(reason(n) == "connect-timeout" for n in range(4, 7))' \
        'all(host(n) == "healthy" for n in range(11, 26))' \
        'all(host(n) == "rolled_back" for n in range(26, 32))' \
        'all(host(n) == "failed" and reason(n) == "disk-full" for n in range(32, 34))' \
        'all(host(n) == "healthy" for n in range(34, 101))'
}

@test "waves stop when the budget is passed: the rest stays untouched" {
    "${play[@]}" --hosts 100 --fault fails-activation=1-100 -- update --yes \
        --policy 'waves=[1, "10%", "100%"]' --policy 'order="inventory"' >"$result"
    holds 'r["exit"] == 3' 'r["states"] == {"rolled_back": 1, "skipped": 99}'
}
