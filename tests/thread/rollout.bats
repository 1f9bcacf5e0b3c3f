#!/usr/bin/env bats
# Sixteen real hosts, all at once: the program built with ThreadSanitizer, and the one that users
# have under valgrind. Only registered in the tsan preset ($FLEET is that program).

load ../e2e/fleet_driver

setup_file() {
    begin_hosts 16
}

teardown_file() {
    end_hosts
}

setup() {
    load_hosts
}

# Enough bytes that the lanes share compressed blocks (transport/nar_feed.h).
@test "16 hosts roll out clean under ThreadSanitizer" {
    # shellcheck disable=SC2046
    inventory $(printf "h%s " $TESTBED_HOSTS) "hosts.*.system={\"path\": \"$(system good v1 --paths 3 --bytes 9000000 --content programs)\"}"
    export TSAN_OPTIONS="${TSAN_OPTIONS:-}:suppressions=$BATS_TEST_DIRNAME/tsan.supp"
    fleet update --plain --now --parallel 16
    cat "$events" "$text"
    [ "$status" = 0 ]
    grep -q '16 of 16 hosts' "$events"
}

@test "and are taken back clean, when the new version dies" {
    # shellcheck disable=SC2046
    inventory $(printf "h%s " $TESTBED_HOSTS) "hosts.*.system={\"path\": \"$(system dies-after-5s v2)\"}"
    export TSAN_OPTIONS="${TSAN_OPTIONS:-}:suppressions=$BATS_TEST_DIRNAME/tsan.supp"
    fleet update --plain --waves 16 --parallel 16 --policy 'min_healthy_time="8s"'
    cat "$events" "$text"
    [ "$status" = 3 ]
    grep -q '16 rolled back' "$events"
}

@test "16 hosts roll out clean under valgrind" {
    command -v valgrind >/dev/null || skip "valgrind is not installed"
    # shellcheck disable=SC2046
    inventory $(printf "h%s " $TESTBED_HOSTS) "hosts.*.system={\"path\": \"$(system good v3)\"}"
    FLEET="$T/valgrind"
    printf '#!/bin/sh\nexec valgrind -q --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=99 "%s" "$@"\n' \
        "$root/build/fleet" >"$FLEET"
    chmod +x "$FLEET"
    fleet update --plain --now --parallel 16
    cat "$events" "$text"
    [ "$status" = 0 ]
    grep -q '16 of 16 hosts' "$events"
}
