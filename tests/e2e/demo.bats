#!/usr/bin/env bats
# scripts/demo as a user runs it, with the release build that it makes itself: on real hosts, and in
# the lighter kind that machines without systemd-nspawn get. Both mostly wait, so they run side by side.

bats_require_minimum_version 1.5.0

setup_file() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    export T=$BATS_FILE_TMPDIR
    begin_demo real --kind nspawn
    begin_demo light --kind light
}

# begin_demo NAME WORD...: in the background; returns when it has done with building, since two must
# not build at once.
begin_demo() {
    local name=$1 folder
    shift
    folder=$(mktemp -d /var/tmp/fleet-demo-test.XXXXXX)
    echo "$folder" >"$T/$name.folder"
    (
        export FLEET_TESTBED=$folder NO_COLOR=1
        "$BATS_TEST_DIRNAME/../testbed/testbed" guard "$BATS_ROOT_PID"
        status=0
        timeout -k 10 1500 "$BATS_TEST_DIRNAME/../../scripts/demo" --plain --hosts 2 "$@" || status=$?
        echo "$status" >"$T/$name.status"
    ) </dev/null >"$T/$name.out" 2>&1 3>&- &
    until grep -q '^== starting' "$T/$name.out" || [ -s "$T/$name.status" ]; do sleep 0.2; done
}

# demo NAME: waits for it. It has ended well, told its third rollout in few lines, and left nothing.
demo() {
    local end=$((SECONDS + 1520))
    until [ -s "$T/$1.status" ]; do
        [ $SECONDS -lt $end ]
        sleep 0.2
    done
    output=$(<"$T/$1.out")
    echo "$output"
    [ "$(<"$T/$1.status")" = 0 ]
    [ ! -e "$(<"$T/$1.folder")/slot" ]
    story=$(sed -n '/^== fleet update.*v3/,/^== that is all/p' <<<"$output")
    [ "$(wc -l <<<"$story")" -lt 30 ]
    [[ $story == *"rolling back"* && $story == *"(exit 3)"* ]]
    [[ $story == *"h1 v2"* && $story == *"h2 v2"* ]]
    [ "$(grep -c '^(exit 0)' <<<"$output")" = 2 ]
}

@test "v1, v2, and a v3 that is caught and taken back, on hosts with systemd" {
    demo real
    [[ $story == *"rolling back systemd units: web.service failed"* ]]
}

@test "the same in the lighter kind" {
    demo light
    grep -q '^h1 *up *light' <<<"$output"
}
