#!/usr/bin/env bats
# The command line of the built program ($FLEET): usage, the inventory's commands, and the commands
# on hosts against real ones: h1 as root, h2 as a user whose sudo asks for a password.
#
# tests/golden/cli and docs/fleet.1 hold what is to be printed; FLEET_GOLDEN_UPDATE=1 writes them anew.

bats_require_minimum_version 1.5.0

setup_file() {
    export GOLDEN=$BATS_TEST_DIRNAME/../golden/cli
    export TESTBED=$BATS_TEST_DIRNAME/../testbed/testbed
    [ "$(id -u)" = 0 ] || return 0
    FLEET_TESTBED=$(mktemp -d /var/tmp/fleet-cli-bats.XXXXXX)
    export FLEET_TESTBED
    "$TESTBED" guard "$BATS_ROOT_PID"
    "$TESTBED" up 2 --flavour opsp 2
    eval "$("$TESTBED" env)"
    export NIX_CONFIG
    "$TESTBED" inventory >"$BATS_FILE_TMPDIR/hosts.json"
}

teardown_file() {
    [ -z "${FLEET_TESTBED:-}" ] || "$TESTBED" destroy
}

setup() {
    export XDG_STATE_HOME=$BATS_TEST_TMPDIR/state
    export NO_COLOR=1
    unset FLEET_INVENTORY CI
    cd "$BATS_TEST_TMPDIR" || return
}

# hosts: from here on the inventory of the real hosts is meant.
hosts() {
    [ -n "${FLEET_TESTBED:-}" ] || skip "needs root"
    export FLEET_INVENTORY=$BATS_FILE_TMPDIR/hosts.json
}

# as_golden NAME: $output is what tests/golden/cli/NAME holds.
as_golden() {
    local file=$GOLDEN/$1
    if [ -n "${FLEET_GOLDEN_UPDATE:-}" ]; then
        printf '%s\n' "$output" >"$file"
    fi
    diff -u "$file" <(printf '%s\n' "$output")
}

# with_dead: the inventory with a third host, where nobody listens.
with_dead() {
    jq '.hosts.dead = {"address": "127.77.255.254", "connect_timeout": "3s",
        "system": {"path": "/nix/store/3k7xjq1c0v9r8l2p5n4m6a0z1y2w3v4s-system"}}' \
        "$FLEET_INVENTORY" >dead.json
    export FLEET_INVENTORY=$PWD/dead.json
}

@test "without a command usage goes to stderr, with --help to stdout" {
    run --separate-stderr "$FLEET"
    [ "$status" = 2 ] && [ -z "$output" ]
    [[ $stderr == *"Usage: fleet"* ]]
    run --separate-stderr "$FLEET" --help
    [ "$status" = 0 ] && [ -z "$stderr" ]
    as_golden help.txt
}

@test "every command has help, and none of it is wider than 80 columns" {
    for command in $("$FLEET" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
        run --separate-stderr "$FLEET" "$command" --help
        [ "$status" = 0 ] && [ -z "$stderr" ]
        [[ $output == "Usage: fleet $command"* ]]
        [ -z "$(awk 'length > 80' <<<"$output")" ]
    done
}

@test "--version names the program" {
    run "$FLEET" --version
    [ "$status" = 0 ]
    [[ $output =~ ^fleet\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "what is misspelt is exit 2 with the right spelling" {
    for words in "updat:update" "help updat:update" "list --exlude x:--exclude" "update --action swich:switch"; do
        # shellcheck disable=SC2086
        run --separate-stderr "$FLEET" ${words%%:*}
        [ "$status" = 2 ] && [ -z "$output" ]
        [[ $stderr == *"did you mean"*"${words##*:}"* ]]
    done
}

@test "what other programs call it is answered with fleet's own word" {
    for words in "deploy:fleet update" "logs:fleet show" "pause:the key p" "stop:Ctrl-C"; do
        run "$FLEET" "${words%%:*}"
        [ "$status" = 2 ]
        [[ $output == *"there is no command '${words%%:*}'; it is "*"${words##*:}"* ]]
    done
}

@test "list prints a table and JSON" {
    run --separate-stderr "$FLEET" -i "$GOLDEN/fleet.json" list
    [ "$status" = 0 ]
    as_golden list.txt
    run --separate-stderr "$FLEET" list --json -i "$GOLDEN/fleet.json"
    [ "$status" = 0 ]
    as_golden list.jsonl
    jq -e . <<<"$output" >/dev/null
}

@test "the nearest fleet.json above is found" {
    mkdir -p a/b
    cp "$GOLDEN/fleet.json" fleet.json
    cd a/b
    run "$FLEET" list db1
    [ "$status" = 0 ]
    [[ $output == *10.0.0.11* ]]
}

@test "an inventory may come through a pipe, and one that nobody writes to is given up" {
    run --separate-stderr bash -c '"$FLEET" -i <(cat "$GOLDEN/fleet.json") list'
    [ "$status" = 0 ]
    [[ $output == *db1* ]]
    mkfifo silent.json
    run timeout 100 "$FLEET" -i silent.json list
    [ "$status" = 2 ]
    [[ $output == *"nothing came from the inventory silent.json for 10 s"* ]]
}

@test "check tells all errors at once, with their places" {
    cp "$GOLDEN/wrong.json" wrong.json
    run --separate-stderr "$FLEET" check -i wrong.json
    [ "$status" = 2 ] && [ -z "$output" ]
    output=$stderr as_golden check-wrong.txt
    run "$FLEET" check -i "$GOLDEN/fleet.json"
    [ "$status" = 0 ]
}

@test "a selector that means nothing is exit 2 with the nearest name" {
    run "$FLEET" -i "$GOLDEN/fleet.json" list db2
    [ "$status" = 2 ]
    [[ $output == *db1* ]]
    run "$FLEET" -i "$GOLDEN/fleet.json" list --tag wbe
    [ "$status" = 2 ]
    [[ $output == *web* ]]
}

@test "a policy override that is wrong is exit 2 and named" {
    run "$FLEET" -i "$GOLDEN/fleet.json" list --policy max_faild=2
    [ "$status" = 2 ]
    [[ $output == *max_failed* ]]
    run "$FLEET" -i "$GOLDEN/fleet.json" list --waves 1,half
    [ "$status" = 2 ]
}

@test "a reader who has had enough is no failure to be told of" {
    run bash -c 'exec 3> >(exec true); wait $!; "$FLEET" completion bash >&3'
    [ "$status" = 1 ]
    [ -z "$output" ]
}

@test "completions are read by their shells, and offer commands, options, hosts and tags" {
    "$FLEET" completion bash >complete.bash
    for shell in zsh fish; do
        "$FLEET" completion "$shell" >"complete.$shell"
        ! command -v "$shell" >/dev/null || "$shell" -n "complete.$shell"
    done
    cp "$GOLDEN/fleet.json" fleet.json
    PATH=$(dirname "$FLEET"):$PATH run bash -c '
        source complete.bash
        # What bash would replace is the last word, or what is behind its last : @ or =.
        ask() { COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; _fleet fleet "${part-${@: -1}}"; echo "${COMPREPLY[*]}"; }
        ask fleet upd
        ask fleet update --acti
        ask fleet update --action ""
        ask fleet list d
        ask fleet list @p
        part=p ask fleet list @p
        ask fleet list --tag ""
        part=p ask fleet list --tag=p
        ask fleet list --tag db+!pro
        ask fleet list --exclude d
        ask fleet list --on db1,@pro
        ask fleet --tag db list @p
        ask fleet exec db1 -- ls ""
        ask fleet ssh ""'
    [ "$status" = 0 ]
    as_golden complete-bash.txt
}

@test "completion runs nothing of an inventory, and offers no name that a shell would" {
    jq -n '{version: 1, hosts: {db1: {address: "local", system: {path: "/nix/store/3k7xjq1c0v9r8l2p5n4m6a0z1y2w3v4s-x"},
        tags: ["$(touch${IFS}pwned)", "`touch${IFS}pwned`", "*", "a;b", "\u0027", "db", "web"]}}}' >fleet.json
    "$FLEET" completion bash >complete.bash
    "$FLEET" completion fish >complete.fish
    PATH=$(dirname "$FLEET"):$PATH run bash -c '
        source complete.bash
        for COMP_LINE in "fleet list --tag " "fleet list " "fleet list --exclude=" "fleet list @"; do
            COMP_POINT=${#COMP_LINE}; _fleet fleet ""; echo "${COMPREPLY[*]}"
        done
        ! command -v fish >/dev/null || fish -c "source complete.fish; complete -C \"fleet list --tag db,\"" |
            cut -f 1 >&2'
    [ "$status" = 0 ]
    [ ! -e pwned ]
    [ "${lines[0]}" = "db web" ]
    [ "${lines[1]}" = "@all @db @web db1" ]
    [ "${lines[3]}" = "all db web" ]
    [ "${#lines[@]}" = 4 ] || [ "${lines[4]} ${lines[5]}" = "db,db db,web" ]
}

@test "an output that is closed or full is an error, whatever the command" {
    for words in "list" "list --json" "help"; do
        for to in '>/dev/full' '>&-'; do
            run bash -c "'$FLEET' -i '$GOLDEN/fleet.json' $words $to"
            [ "$status" = 1 ]
            [[ $output == *"could not be written"* ]]
        done
    done
}

@test "the manual page is whole, and docs/fleet.1 is the program's own" {
    "$FLEET" help --man >fleet.1
    [ -z "${FLEET_GOLDEN_UPDATE:-}" ] || cp fleet.1 "$BATS_TEST_DIRNAME/../../docs/fleet.1"
    diff -u "$BATS_TEST_DIRNAME/../../docs/fleet.1" fleet.1
    if command -v man >/dev/null; then
        [ -z "$(man --warnings -l fleet.1 2>&1 >/dev/null)" ]
    fi
    grep -q '^\.SS fleet update' fleet.1
}

@test "the machine that fleet runs on is not rebooted by it" {
    jq -n '{version: 1, defaults: {system: {path: "/nix/store/3k7xjq1c0v9r8l2p5n4m6a0z1y2w3v4s-x"}},
        hosts: {me: {address: "local"}}}' >fleet.json
    for words in "reboot" "update --reboot always"; do
        run "$FLEET" $words --yes
        [ "$status" = 2 ]
        [[ $output == *"me is the machine that fleet runs on"*"--exclude me"*"nothing was touched"* ]]
    done
}

@test "history of no runs is empty" {
    run --separate-stderr "$FLEET" history
    [ "$status" = 0 ] && [ -z "$output" ]
    run "$FLEET" show
    [ "$status" != 0 ]
}

@test "check --reach connects; one host down is exit 5" {
    hosts
    run --separate-stderr "$FLEET" check --reach
    [ "$status" = 0 ]
    [[ $output == *"h1: reached at "* ]]
    with_dead
    run --separate-stderr "$FLEET" check --reach
    [ "$status" = 5 ]
    [[ $stderr == *"dead: "* ]]
    jq '.hosts.dead.optional = true' dead.json >optional.json
    run --separate-stderr "$FLEET" -i optional.json check --reach
    [ "$status" = 0 ]
}

@test "exec keeps words, streams and exit codes apart" {
    hosts
    run --separate-stderr "$FLEET" exec -- sh -c 'printf "%s|" "$@"; id -un; echo bad >&2' sh 'a  b' '$x' "c'd"
    [ "$status" = 0 ]
    [ "$(sort <<<"$output")" = "h1: a  b|\$x|c'd|root
h2: a  b|\$x|c'd|root" ]
    [ "$(sort <<<"$stderr")" = "h1: bad
h2: bad" ]
    run --separate-stderr "$FLEET" exec --json h1 -- sh -c 'echo out; exit 7'
    [ "$status" = 3 ]
    [ "$(jq -c '[.host, .exit, .stdout, .stderr]' <<<"$output")" = '["h1",7,"out\n",""]' ]
    run "$FLEET" exec h1 -- printf '\033[31mred\n'
    [ "$output" = "h1: red" ]
}

@test "exec streams lines as they come, and gives a host up in time" {
    hosts
    SECONDS=0
    run --separate-stderr "$FLEET" exec --timeout 2s h1 -- sh -c 'echo first; sleep 30'
    [ "$status" = 3 ] && [ $SECONDS -lt 15 ]
    [ "$output" = "h1: first" ]
    with_dead
    run --separate-stderr "$FLEET" exec -- true
    [ "$status" = 5 ]
}

@test "exec wants the two dashes" {
    hosts
    run "$FLEET" exec uptime
    [ "$status" = 2 ]
    [[ $output == *"'--'"* ]]
}

@test "ssh hands over with the inventory's settings" {
    hosts
    run --separate-stderr "$FLEET" ssh h1 -- sh -c 'echo "a  b"; exit 4'
    [ "$status" = 4 ] && [ "$output" = "a  b" ]
    # Through a jump, and with the host's key from the inventory.
    key=$(ssh-keyscan -t ed25519 "$TESTBED_ADDRESS_2" 2>/dev/null | cut -d' ' -f2,3)
    jq --arg key "$key" '.hosts.h2.jump = "h1" | .hosts.h2.host_key = $key' "$FLEET_INVENTORY" >jump.json
    run --separate-stderr "$FLEET" -i jump.json ssh h2 -- id -un
    [ "$status" = 0 ] && [ "$output" = opsp ]
    # A jump that the inventory doesn't know has the keys and known_hosts of the host that names it.
    jq --arg jump "root@$TESTBED_ADDRESS_1:22" '.hosts.h2.jump = $jump' "$FLEET_INVENTORY" >jump.json
    run --separate-stderr "$FLEET" -i jump.json ssh h2 -- id -un
    [ "$status" = 0 ] && [ "$output" = opsp ]
    # Of several addresses the one that answers.
    jq '.hosts.h2.address = ["127.0.0.9:9", .hosts.h2.address]' "$FLEET_INVENTORY" >several.json
    run --separate-stderr "$FLEET" -i several.json ssh h2 -- id -un
    [ "$status" = 0 ] && [ "$output" = opsp ]
    run "$FLEET" ssh h9
    [ "$status" = 2 ]
    [[ $output == *"did you mean"* ]]
}

@test "build touches no target; an update, status, history and generations agree" {
    hosts
    before=$("$FLEET" exec h1 h2 -- readlink /run/current-system | sort)
    run --separate-stderr "$FLEET" build
    [ "$status" = 0 ]
    [ "$(wc -l <<<"$output")" = 2 ]
    [[ $output == *"h1 /nix/store/"* ]]
    [ "$("$FLEET" exec h1 h2 -- readlink /run/current-system | sort)" = "$before" ]

    run --separate-stderr "$FLEET" status --json h1
    [ "$status" = 3 ]
    [ "$(jq -c '[.reachable, .in_sync, .drift, .lock, .guard]' <<<"$output")" = \
        '[true,false,["never-deployed"],null,null]' ]

    run "$FLEET" update --now --policy startup_grace=0s
    [ "$status" = 0 ]
    run --separate-stderr "$FLEET" status --json
    [ "$status" = 0 ]
    [ "$(jq -sc 'map(.in_sync)' <<<"$output")" = '[true,true]' ]
    [ "$(jq -r 'select(.host == "h1") | .current == .profile and .run != null' <<<"$output")" = true ]
    run --separate-stderr "$FLEET" status
    [ "$status" = 0 ]
    [ -z "$(awk 'length > 80' <<<"$output")" ]

    run --separate-stderr "$FLEET" generations --json h1
    [ "$status" = 0 ]
    [ "$(jq -sc 'map([.generation, .current, .booted])' <<<"$output")" = '[[1,false,true],[2,true,false]]' ]

    run --separate-stderr "$FLEET" history --json
    [ "$(jq -sc 'map([.action, .result, .exit])' <<<"$output")" = \
        '[["switch","done",0],["build","done",0]]' ]
    run --separate-stderr "$FLEET" show --json
    jq -se '.[0].type == "run_start" and .[-1].type == "run_end"' <<<"$output"
    run --separate-stderr "$FLEET" watch
    [ "$status" = 0 ]
    [[ $output == *"2 of 2 hosts"* ]]

    with_dead
    run --separate-stderr "$FLEET" status
    [ "$status" = 5 ]
    [[ $output == *unreachable* ]]
}

@test "unlock breaks a lock by its id only" {
    hosts
    "$TESTBED" ssh 1 'mkdir -p /run/fleet; printf "id abc-1\nrun r\nwho me@there pid 1\nsince 2026-01-01T00:00:00Z\nboot %s\nuntil 99999999999\n" "$(cat /proc/sys/kernel/random/boot_id)" >/run/fleet/lock'
    run --separate-stderr "$FLEET" status --json h1
    [ "$(jq -c '[.lock.id, .lock.who, (.lock.expires > 0)]' <<<"$output")" = '["abc-1","me@there pid 1",true]' ]
    run "$FLEET" unlock h1
    [ "$status" = 2 ]
    run "$FLEET" unlock h1 --id abc-2
    [ "$status" = 7 ]
    [[ $output == *abc-1*"me@there pid 1"* ]]
    run "$FLEET" unlock h1 --id abc-1
    [ "$status" = 0 ]
    run "$FLEET" unlock h1 --id abc-1
    [ "$status" = 0 ]
    [[ $output == *"no lock was held"* ]]
}

@test "an unknown host key without a terminal is refused with the line to paste" {
    hosts
    jq '.defaults.known_hosts = "'"$PWD"'/none" | .defaults.host_key_check = "ask"' "$FLEET_INVENTORY" >ask.json
    run --separate-stderr "$FLEET" -i ask.json check --reach </dev/null
    [ "$status" = 5 ]
    [[ $stderr == *ssh-ed25519* ]]
}

@test "at a terminal all unknown keys are asked for in one list, and trusted on yes" {
    hosts
    jq '.defaults.known_hosts = "'"$PWD"'/known" | .defaults.host_key_check = "ask"' "$FLEET_INVENTORY" >ask.json
    ask() { # answer
        (sleep 3; echo "$1") | script -qec "'$FLEET' -i ask.json check --reach" /dev/null
    }
    run ask no
    [[ $output == *"2 host keys are not known yet"*SHA256*SHA256*"nothing was done"* ]]
    [ ! -s known ]
    run ask yes
    [ "$status" = 0 ]
    [ "$(wc -l <known)" = 2 ]
    [[ $output == *"h2: reached"* ]]
}

hold_journal() { # SECONDS: as a run does that is alive; ready once it is held
    rm -f held
    python3 - "$1" "$XDG_STATE_HOME"/fleet/runs/*/journal.jsonl <<'PYTHON' 3>&- &
import fcntl, struct, sys, time
with open(sys.argv[2], "r+b") as journal:
    fcntl.fcntl(journal, 37, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
    open("held", "w").close()
    time.sleep(float(sys.argv[1]))
PYTHON
    while [ ! -e held ]; do sleep 0.05; done
}

@test "resume: a run that is alive is left alone; one whose lock ends with a child just now is not" {
    echo '{"version": 1, "hosts": {"gone": {"address": "127.0.0.1:1", "host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJrhpWZ12C1TPQW6a83vMZ0n0qY1PjsbdFd0O6dgrLzR", "system": {"path": "/nix/store/00000000000000000000000000000000-none"}}}}' >fleet.json
    run "$FLEET" update --yes
    [ "$status" -ne 2 ]
    hold_journal 60
    run "$FLEET" resume
    kill $!
    [ "$status" = 7 ]
    [[ $output == *'is alive here'* ]]
    hold_journal 0.4
    run "$FLEET" resume
    [ "$status" = 0 ]
    [[ $output == *'nothing to do'* ]]
}
