# shellcheck shell=bash disable=SC2154,SC2034
# Drives the built program on the testbed's hosts and asks those hosts what became of them: by
# ssh and HTTP of the tests' own, never by the program under test.
#
# Rollouts here are impatient (see inventory): what takes a minute by default takes seconds.

bats_require_minimum_version 1.5.0

root=$BATS_TEST_DIRNAME/../..
testbed=$root/tests/testbed/testbed
support=$root/tests/support
profile=/nix/var/nix/profiles/system
FLEET=${FLEET:-$root/build/fleet}

# begin_hosts COUNT [OPTION...]: as `testbed up`; for setup_file. Sets T, a folder for the file.
begin_hosts() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    FLEET_TESTBED=$(mktemp -d /var/tmp/fleet-e2e.XXXXXX)
    export FLEET_TESTBED T=$BATS_FILE_TMPDIR
    "$testbed" guard "$BATS_ROOT_PID"
    "$testbed" up "$@" 3>&-
    load_hosts
    # A test's own home: nobody's ~/.ssh/config decides here.
    mkdir -p "$T/home"
    export HOME=$T/home
    unset SSH_AUTH_SOCK
}

end_hosts() { # for teardown_file
    [ -z "${FLEET_TESTBED:-}" ] || "$testbed" destroy
}

load_hosts() { # for setup, too: sets TESTBED_ADDRESS_1 and so on
    eval "$("$testbed" env)"
    v0=$TESTBED_SEED
    inventory=$T/$BATS_TEST_NUMBER.json events=$T/$BATS_TEST_NUMBER.events
    text=$T/$BATS_TEST_NUMBER.text
}

address() { # HOST
    local name=TESTBED_ADDRESS_${1#h}
    echo "${!name}"
}

system() { # VARIANT VERSION [OPTION...]: a store path
    "$testbed" build "$@"
}

# inventory WORD...: words of edit_inventory.py. Made for the current test. $window is how long a
# guard waits: short where a test waits for it to go back.
inventory() {
    "$testbed" inventory | "$support/edit_inventory.py" \
        'hosts.*.health.0.interval="500ms"' 'hosts.*.health.0.timeout="2s"' \
        'defaults.policy={"min_healthy_time": "1s", "startup_grace": "1s",
                          "confirm_timeout": "'"${window:-10s}"'", "healthy_deadline": "15s"}' "$@" >"$inventory"
}

# fleet WORD...: with the test's inventory and the file's state folder. Standard output and errors
# are kept in $events and $text, the exit code in `status`: 124 if it took longer than $limit.
fleet() {
    status=0
    timeout -k 15 "${limit:-300}" "$FLEET" -i "$inventory" --state-dir "$T/state" "$@" \
        >"$events" 2>"$text" </dev/null 3>&- || status=$?
}

update() { fleet update --yes --json "$@"; }

# start_update [OPTION...]: in the background, `operator` is the program's own process.
start_update() {
    "$FLEET" -i "$inventory" --state-dir "$T/state" update --yes --json "$@" \
        >"$events" 2>"$text" </dev/null 3>&- &
    operator=$!
}

# end_update: waits for it; its exit code in `status`.
end_update() {
    status=0
    wait "$operator" || status=$?
}

event() { "$support/read_events.py" "$1" "$events" "${@:2}"; }

# Waits end with what they wait for. Their seconds are a quiet machine's: a busy one gets so many
# times as long.
patience=4

# await_event SECONDS PATTERN: until a line of the events matches.
await_event() {
    local end=$((SECONDS + $1 * patience))
    until grep -q -- "$2" "$events"; do
        if [ $SECONDS -ge $end ]; then
            echo "no event like '$2' within $(($1 * patience)) s" >&2
            return 1
        fi
        sleep 0.05
    done
}

await_state() { # SECONDS HOST STATE
    await_event "$1" "\"type\":\"host_state\",\"host\":\"$2\".*\"to\":\"$3\""
}

# For teardown: what failed shall tell its story, and nothing of a test outlives it.
tell() {
    jobs -rp | xargs -r kill -KILL
    [ -n "${BATS_TEST_COMPLETED:-}" ] && return
    echo "status ${status:-}"
    cat "$text"
    "$support/read_events.py" show "$events" | tail -n 150
} 2>/dev/null

assert_exit() { # CODE
    [ "$status" = "$1" ] || { echo "exit $status instead of $1" >&2; return 1; }
}

# assert_state HOST STATE [REASON [TEXT]]: its end, by the events. REASON is a pattern.
assert_state() {
    local found reason message
    read -r -d '' found reason message <<<"$(event state "$1")" || true
    # shellcheck disable=SC2053
    if [ "$found" != "$2" ] || [[ $reason != ${3:-*} ]] || [[ $message != *"${4:-}"* ]]; then
        printf '%s is %s (%s): %s\ninstead of %s (%s): %s\n' "$1" "$found" "$reason" "$message" \
            "$2" "${3:-}" "${4:-}" >&2
        return 1
    fi
}

on() { "$testbed" ssh "${1#h}" "${@:2}"; } # HOST COMMAND...

page() { curl -s -m 3 --noproxy '*' "http://$(address "$1"):8080/$2"; }

assert_serves() { # HOST VERSION
    local said
    said=$(page "$1" version) || true
    [ "$said" = "$2" ] || { echo "$1 answers '$said' instead of '$2'" >&2; return 1; }
}

# facts HOST: the running system, the profile's system and link, the boot default, and what should
# not be there once a run has ended.
facts() {
    on "$1" /bin/sh -s <<'SCRIPT'
readlink -f /run/current-system
echo "$(readlink -f /nix/var/nix/profiles/system) $(readlink /nix/var/nix/profiles/system)"
cat /boot/loader/default
ls -d /nix/var/nix/gcroots/fleet/guard-* /var/lib/fleet/guard /run/fleet/lock 2>/dev/null
systemctl is-active fleet-guard.service 2>/dev/null | grep -v inactive
exit 0
SCRIPT
}

# assert_host HOST SYSTEM GENERATION [RUNNING]: system of profile and boot default; what runs, if
# that is another one. No guard, no lock.
assert_host() {
    local said want
    said=$(facts "$1")
    want=$(printf '%s\n%s system-%s-link\n%s' "${4:-$2}" "$2" "$3" "$2")
    if [ "$said" != "$want" ]; then
        printf '%s is\n%s\nand should be\n%s\n' "$1" "$said" "$want" >&2
        return 1
    fi
}

# await_host SECONDS HOST SYSTEM GENERATION [RUNNING]: until all of assert_host holds.
await_host() {
    local end=$((SECONDS + $1 * patience))
    until assert_host "${@:2}" 2>"$T/await"; do
        if [ $SECONDS -ge $end ]; then
            cat "$T/await" >&2
            return 1
        fi
        sleep 0.5
    done
}

# record_tools: makes $T/tools, a folder for `nix_bin` whose tools write down in $T/calls how they
# were called.
record_tools() {
    local tool
    mkdir -p "$T/tools"
    for tool in nix nix-instantiate nix-store; do
        printf '#!/bin/sh\necho %s "$*" >>%s\nexec %s "$@"\n' "$tool" "$T/calls" \
            "$(command -v "$tool")" >"$T/tools/$tool"
    done
    chmod +x "$T"/tools/*
    : >"$T/calls"
}

logins() { "$testbed" logins "${1#h}"; }
