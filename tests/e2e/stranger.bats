#!/usr/bin/env bats
# shellcheck disable=SC2016,SC2154
# The contract, driven by somebody who knows nothing else: hosts, systems and inventories made by
# hand (stranger_hosts.bash), odd surroundings, and what a person finds who looks at the hosts.

bats_require_minimum_version 1.5.0
load stranger_hosts

setup_file() {
    begin_stranger
    export V0 V1
    V0=$(make_system 0)
    V1=$(make_system 1)
    start_host plain 1 "$V0" 'MaxStartups 4:100:4'
    LOGIN=/usr/bin/fish start_host fish 2 "$V0" "${nixos_algorithms[@]}" 'MaxSessions 2'
    LOGIN=/usr/bin/zsh RC='echo welcome; printf "\033[31mred\033[0m\n"; echo noise >&2' \
        start_host zsh 3 "$V0" "Banner /etc/services" 'PermitUserEnvironment yes'
    LOGIN=/bin/dash start_host dash 4 "$V0" "${nixos_algorithms[@]}"
    start_host sudo 5 "$V0"
    start_host password 6 "$V0"
    wait_for_hosts plain fish zsh dash sudo password
}

teardown_file() {
    end_stranger
}

# all SYSTEM: the hosts, each to run that system.
all() {
    inventory "
    \"plain\": { \"address\": [\"$NET.99\", \"$NET.1:22\"], \"system\": { \"path\": \"$1\" } },
    \"fish\": { \"address\": \"$NET.2\", \"system\": { \"path\": \"$1\" }, \"health\": false },
    \"zsh\": { \"address\": \"$NET.3\", \"system\": { \"command\": [\"echo\", \"$1\"] } },
    \"dash\": { \"address\": \"$NET.4\", \"system\": { \"path\": \"$1\" }, \"jump\": \"plain\" },
    \"sudo\": { \"address\": \"$NET.5\", \"system\": { \"path\": \"$1\" }, \"user\": \"deploy\", \"sudo\": true },
    \"password\": { \"address\": \"$NET.6\", \"system\": { \"path\": \"$1\" }, \"user\": \"pw\", \"sudo\": true,
                    \"password_command\": [\"echo\", \"two words\"] }"
}

@test "hosts with strange shells, limits and accounts all take a system, and give it back" {
    all "$V1"
    fleet check --reach
    [ "$status" = 0 ]
    fleet update --json
    [ "$status" = 0 ]
    valid_events "$S/out"
    for host in plain fish zsh dash sudo password; do
        runs "$host" "$V1"
    done
    fleet status
    [ "$status" = 0 ]
    fleet rollback --json
    [ "$status" = 0 ]
    valid_events "$S/out"
    for host in plain fish zsh dash sudo password; do
        runs "$host" "$V0"
    done
    # What is left on a host is root's: nobody else may hold the lock, or read the guard's files.
    [ "$(inside sudo stat -c %a /run/fleet/lock.flock)" = 600 ]
    [ "$(inside sudo stat -c %a /run/fleet/guard)" = 700 ]
}

@test "each exit code of an activation has its end, and the run's is 3" {
    inventory "
    \"plain\": { \"address\": \"$NET.1\", \"system\": { \"path\": \"$(make_system 2 1)\" } },
    \"fish\": { \"address\": \"$NET.2\", \"system\": { \"path\": \"$(make_system 2 2)\" } },
    \"zsh\": { \"address\": \"$NET.3\", \"system\": { \"path\": \"$(make_system 2 3)\" } },
    \"dash\": { \"address\": \"$NET.4\", \"system\": { \"path\": \"$(make_system 2 4)\" } },
    \"sudo\": { \"address\": \"$NET.5\", \"system\": { \"path\": \"$(make_system 2 100)\" } }"
    fleet update --json --now --policy max_failed=9
    [ "$status" = 3 ]
    valid_events "$S/out"
    ends=$(sed -n 's/.*"host":"\([a-z]*\)".*"to":"\([a-z_]*\)".*/\1 \2/p' "$S/out" | tac | sort -u -s -k1,1)
    [ "$ends" = "dash healthy
fish rolled_back
plain rolled_back
sudo reboot_required
zsh rolled_back" ]
    for host in plain fish zsh sudo; do
        runs "$host" "$V0"
    done
}

@test "two operators in the same second: one does it, the other is told who" {
    all "$(make_system 3 0 4)" # long enough for the later one to come while it lasts
    mkdir "$S/other"
    (fleet update plain --now --state-dir "$S/other/state" >"$S/other/log" 2>&1; echo "$status" >"$S/other/status") &
    first=$!
    operator "$FLEET" -i "$S/fleet.json" --state-dir "$S/state" update plain --now >"$S/two" 2>&1 </dev/null 3>&- ||
        code=$?
    wait "$first"
    cat "$S/two" "$S/other/log"
    [ "$(printf '%s\n' "${code:-0}" "$(<"$S/other/status")" | sort | xargs)" = "0 7" ]
    grep -hq 'fleet unlock plain --id [0-9a-f]' "$S/two" "$S/other/log"
}

@test "an account without sudo sees who holds the host, and is told what it lacks" {
    all "$V1"
    sed -i 's/"sudo": true/"sudo": false/' "$S/fleet.json"
    inside sudo sh -c 'mkdir -p /run/fleet; umask 077; : >/run/fleet/lock.flock; umask 022
        read -r boot </proc/sys/kernel/random/boot_id
        printf "id abc\nrun r1\nwho ann@laptop pid 7\nsince 2026-01-01T00:00:00Z\nboot %s\nuntil 99999999999\n" \
            "$boot" >/run/fleet/lock'
    fleet status sudo --json
    grep -q '"lock":{"run":"r1","id":"abc","who":"ann@laptop pid 7"' "$S/out"
    inside sudo rm /run/fleet/lock
    fleet update sudo
    [ "$status" = 3 ]
    grep -q 'the account is not root there: set `sudo: true`' "$S/out"
    fleet gc sudo
    grep -q 'the account is not root there: set `sudo: true`' "$S/err"
    runs sudo "$V0"
}

@test "an inventory from a pipe is read once, and a plan of it knows when it is stale" {
    all "$V1"
    mkfifo "$S/pipe"
    timeout 60 sh -c 'cat "$0" >"$1"' "$S/fleet.json" "$S/pipe" 3>&- &
    run timeout 60 unshare -m sh -c 'mount --bind "$0/operator/nix" /nix && exec "$@"' "$S" \
        "$FLEET" -i "$S/pipe" --state-dir "$S/state" plan zsh --out "$S/plan" 3>&-
    echo "$output"
    [ "$status" = 0 ]
    timeout 60 sh -c 'sed "s/by hand/by foot/" "$0" >"$1"' "$S/fleet.json" "$S/pipe" 3>&- &
    run timeout 60 unshare -m sh -c 'mount --bind "$0/operator/nix" /nix && exec "$@"' "$S" \
        "$FLEET" -i "$S/pipe" --state-dir "$S/state" update --plan "$S/plan" 3>&-
    echo "$output"
    [ "$status" = 8 ]
    fleet update --plan "$S/nowhere"
    [ "$status" = 2 ]
    grep -q "nowhere can't be opened: No such file" "$S/err"
    runs zsh "$V0"
}

@test "surroundings that are missing, closed, small or full" {
    all "$V1"
    words=(-i "$S/fleet.json" --state-dir "$S/state")
    mkdir "$S/gone"
    (cd "$S/gone" && rmdir "$S/gone" && operator "$FLEET" "${words[@]}" exec dash -- true) 3>&-
    operator env -i "$FLEET" "${words[@]}" exec dash -- true 3>&-
    operator "$FLEET" "${words[@]}" exec dash -- true <&- >&- 2>&- 3>&-
    (ulimit -n 64; operator "$FLEET" "${words[@]}" exec dash fish zsh -- true) 3>&-
    run -1 --separate-stderr operator sh -c '"$@" >/dev/full' sh "$FLEET" "${words[@]}" list --json
    [[ $stderr == *"the output could not be written"* ]]
    (umask 0; operator "$FLEET" -i "$S/fleet.json" --state-dir "$S/open" build dash) 3>&-
    [ -z "$(find "$S/open" ! -type l -perm /022)" ]
    [ "$(stat -c %a "$S/open")" = 700 ]
    # A key that can't be judged is not taken, however new keys are meant to be met.
    sed -i "s,\"known_hosts\": .*,\"host_key_check\": \"accept-new\"\, \"known_hosts\": \"$S/state\"\,," "$S/fleet.json"
    fleet check --reach fish
    [ "$status" = 5 ]
    grep -q "can't be read (it is no file)" "$S/err"
}

@test "a journal that may not grow any more stops the run, and the host goes back" {
    all "$V1"
    fleet update zsh --now
    runs zsh "$V1"
    (ulimit -f 3; operator "$FLEET" -i "$S/fleet.json" --state-dir "$S/small" rollback zsh --to "$V0" --now \
        >"$S/out" 2>"$S/err" </dev/null 3>&-) || code=$?
    cat "$S/out" "$S/err"
    [ "$code" = 1 ]
    grep -q "journal.jsonl can't be written .*File too large" "$S/err"
    runs zsh "$V1"
    fleet --state-dir "$S/small" resume
    [ "$status" = 0 ]
    runs zsh "$V0"
}
