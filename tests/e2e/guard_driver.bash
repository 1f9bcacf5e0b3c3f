# shellcheck shell=bash disable=SC2154
# Drives the very scripts of core/target on the testbed's hosts, put together as core/target_call.c
# does it. For guard.bats: what the guard does must hold whatever becomes of the program.

root=$BATS_TEST_DIRNAME/../..
scripts=$root/core/target
testbed=$root/tests/testbed/testbed

begin_guards() { # for setup_file
    [ "$(id -u)" = 0 ] || skip "needs root"
    FLEET_TESTBED=$(mktemp -d /var/tmp/fleet-guard.XXXXXX)
    export FLEET_TESTBED
    "$testbed" guard "$BATS_ROOT_PID"
    "$testbed" up 0 3>&-
}

# For setup: a host for this test, $I, of the kind that its name asks for. Its first system is $v0.
begin_guard() {
    local kind=nspawn
    I=$BATS_TEST_NUMBER
    case $BATS_TEST_DESCRIPTION in *'without systemd'*) kind=light ;; esac
    "$testbed" up 1 --first "$I" --kind $kind
    eval "$("$testbed" env)"
    v0=$TESTBED_SEED
    # NixOS's /bin/sh is bash, Debian's dash: FLEET_GUARD_SHELL=bash runs all of this with the other.
    [ -z "${FLEET_GUARD_SHELL:-}" ] ||
        "$testbed" ssh "$I" ln -sf "$FLEET_GUARD_SHELL" /usr/bin/sh
    nonce=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
}

end_guard() { # for teardown; what failed shall tell its story
    if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
        "$testbed" ssh "$I" 'sh -c "cat /run/fleet/guard/state /var/lib/fleet/guard.last; tail -n 20 /run/fleet/guard/activation.log"' || true
    fi
    "$testbed" down "$I"
}

on_host() { "$testbed" ssh "$I" /bin/sh -s; }

# Replaces a program of the old system by a script that may call the true one as $true_one.
wrap_program() { # name, script
    "$testbed" ssh "$I" /bin/sh -s <<SCRIPT
cd $v0/sw/bin && true_one=\$(readlink $1) && rm $1 && cat >$1 <<'TEXT'
#!/bin/sh
$2
TEXT
sed -i "s|true_one|\$true_one|g" $1 && chmod 755 $1
SCRIPT
}

quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

guard_text() { cat "$scripts/prelude.sh" "$scripts/record.sh" "$scripts/guard_back.sh" "$scripts/guard.sh"; }

# PART... -- NAME=VALUE...: one script for a target's shell.
compose() {
    local parts=() pair
    while [ "$1" != -- ]; do
        parts+=("$scripts/$1.sh")
        shift
    done
    shift
    echo '('
    for pair in "$@"; do
        printf '%s=%s\n' "${pair%%=*}" "$(quoted "${pair#*=}")"
    done
    cat "$scripts/prelude.sh" "${parts[@]}"
    echo ') </dev/null'
}

# HOST, PART... -- NAME=VALUE...
run_script() {
    local host=$1
    shift
    compose "$@" | "$testbed" ssh "$host" /bin/sh -s
}

# HOST, SYSTEM, NAME=VALUE...: starts a guard; later pairs win.
guard_start() {
    local host=$1 system=$2
    shift 2
    run_script "$host" lock record guard_start -- LOCK_ID= \
        PROFILE=/nix/var/nix/profiles/system NONCE="$nonce" ACT_RUN=run1 ACTION=switch \
        NEW="$system" ACTIVATE_MS=60000 CONFIRM_MS=60000 REV=abc123 DIRTY=false \
        WHO='me@there 1' TO=0 LEAVE=no GUARD_SH="$(guard_text)" "$@"
}

guard_poll() { # HOST, NAME=VALUE...
    local host=$1
    shift
    run_script "$host" guard_poll -- NONCE="$nonce" SEEN= OFFSET=0 WAIT_MS=0 "$@"
}

guard_request() { # HOST, REQUEST, NAME=VALUE...
    local host=$1 request=$2
    shift 2
    run_script "$host" lock guard_request guard_poll -- REQUEST="$request" NONCE="$nonce" \
        LOCK_ID= LEASE_MS=120000 SEEN= OFFSET= WAIT_MS=0 "$@"
}

repair() { # HOST
    run_script "$1" lock record repair -- PROFILE=/nix/var/nix/profiles/system LOCK_ID= \
        WAIT_MS=120000 GUARD_SH="$(guard_text)"
}

inspect() { # HOST
    run_script "$1" lock inspect -- PROFILE=/nix/var/nix/profiles/system DESIRED=
}

value() { # KEY: its first value among the lines on stdin
    sed -n "s/^$1 //p" | head -n 1
}

# Waits end with what they wait for. Their seconds are a quiet machine's: a busy one gets so many
# times as long.
patience=4

# HOST, PATTERN, SECONDS: polls until the state line matches; prints it.
await_state() {
    local line='' end=$((SECONDS + $3 * patience))
    while [ $SECONDS -lt $end ]; do
        line=$(guard_poll "$1" SEEN="$line" WAIT_MS=2000 2>/dev/null | value state) || line=
        # shellcheck disable=SC2053
        if [[ $line == $2 ]]; then
            echo "$line"
            return 0
        fi
    done
    echo "no '$2' within $(($3 * patience)) s, the last state is '$line'" >&2
    return 1
}

# HOST, SECONDS: until the record is gone and no guard is left, asked by what is on the host.
await_end() {
    local end=$((SECONDS + $2 * patience))
    while [ $SECONDS -lt $end ]; do
        if "$testbed" ssh "$1" 'sh -c "! test -e /var/lib/fleet/guard/record && \
            ! systemctl is-active -q fleet-guard 2>/dev/null"' 2>/dev/null; then
            return 0
        fi
        sleep 0.3
    done
    echo "the guard of h$1 has not ended within $(($2 * patience)) s" >&2
    "$testbed" ssh "$1" 'sh -c "cat /run/fleet/guard/state; ps axf; systemctl status fleet-guard; tail -20 /run/fleet/guard/activation.log"' >&2
    return 1
}

# Kills the guard of $I and its way back, until nothing is left of it but its record.
kill_wholly() {
    on_host <<<'while systemctl kill -s KILL fleet-guard; do sleep 0.1; done 2>/dev/null; test -e /var/lib/fleet/guard/record'
}

last_word() { "$testbed" ssh "$1" cat /var/lib/fleet/guard.last; }

# HOST, CURRENT, PROFILE (a path and its generation: "PATH N"), BOOT DEFAULT: what the host is.
assert_host() {
    local said
    said=$("$testbed" ssh "$1" /bin/sh -s <<'SCRIPT'
readlink -f /run/current-system
echo "$(readlink -f /nix/var/nix/profiles/system) $(readlink /nix/var/nix/profiles/system)"
cat /boot/loader/default
ls -d /nix/var/nix/gcroots/fleet/guard-* /var/lib/fleet/guard 2>/dev/null
exit 0
SCRIPT
    )
    local want
    want=$(printf '%s\n%s\n%s' "$2" "$3" "$4")
    if [ "$said" != "$want" ]; then
        printf 'h%s is\n%s\nand should be\n%s\n' "$1" "$said" "$want" >&2
        return 1
    fi
}

assert_old() { assert_host "$1" "$v0" "$v0 system-1-link" "$v0"; }
assert_new() { assert_host "$1" "$2" "$2 system-2-link" "$2"; }

# HOST, VARIANT, VERSION: builds a system, copies it to the host, prints its path.
send_system() {
    local path
    path=$("$testbed" build "$2" "$3")
    # shellcheck disable=SC2046
    nix-store --export $(nix-store --query --requisites "$path") |
        "$testbed" ssh "$1" nix-store --import >/dev/null
    echo "$path"
}
