#!/usr/bin/env bats
# `fleet status --watch` on real hosts: the dashboard of the fleet at rest in a real terminal (tmux),
# and the same as lines and as JSON. How its screens look is in tests/unit/test_rest.c.

bats_require_minimum_version 1.5.0

load fleet_driver.bash

setup_file() {
    command -v tmux >/dev/null || skip "tmux is missing: scripts/packages test installs it"
    begin_hosts 3
    export SOCKET=$BATS_FILE_TMPDIR/tmux TZ=UTC LC_ALL=C.UTF-8
    unset NO_COLOR
    local top
    top=$(system good v1)
    BATS_TEST_NUMBER=0
    load_hosts
    inventory h1="$top" h2="$top" h3="$top"
    fleet update --yes --now
    [ "$status" = 0 ]
}

teardown_file() {
    tmux -S "$SOCKET" kill-server 2>/dev/null || true
    end_hosts
}

setup() {
    load_hosts
    # The inventory of the first rollout: what the hosts shall run.
    inventory=$T/0.json
}

teardown() { tell; }

tmux_() { tmux -S "$SOCKET" -f /dev/null "$@" 3>&-; }

shown() { tmux_ capture-pane -p -t rest; }

sees() { # pattern
    local i
    for i in $(seq 360); do
        if shown | grep -Eq -- "$1"; then return 0; fi
        sleep 0.25
    done
    printf 'nothing like "%s" on:\n' "$1"
    shown
    return 1
}

press() { # pattern to see after, keys
    printf '%s\n' "${@:2}" >>"$T/typed"
    tmux_ send-keys -t rest "${@:2}"
    sees "$1"
}

# The help is made of the table that binds the keys: what stands there and was never typed, in vain.
every_key_was_typed() {
    local label key missing=()
    tmux_ resize-window -t rest -x 100 -y 50
    press 'In the map:' '?'
    shown | sed -n '/ keys ─/,/In the map:/p' | grep -v 'In the map:' |
        sed -n 's/^  \([^ ].\{0,11\}\)  *.*/\1/p' >"$T/labels"
    [ "$(wc -l <"$T/labels")" -ge 19 ]
    while read -r label; do
        for key in ${label//,/ }; do
            case $key in
            up | down | home | end) key=${key^} ;;
            space) key=Space ;;
            Esc) key=Escape ;;
            esac
            grep -qxF -- "$key" "$T/typed" || missing+=("$key")
        done
    done <"$T/labels"
    [ ${#missing[@]} = 0 ] || { echo "never typed: ${missing[*]}"; return 1; }
}

@test "on a terminal: who needs a person, what changed, every key" {
    tmux_ new-session -d -s rest -x 100 -y 30 \
        "env -u CI TERM=tmux-256color '$FLEET' -i '$inventory' --state-dir '$T/state' status --watch --probe; echo \"code \$?\"; stty -a; sleep 600"
    tmux_ set-option -t rest status off
    tmux_ resize-window -t rest -x 100 -y 30
    sees '3 of 3 in sync'
    sees 'nothing needs a person'
    local logins
    logins=$(logins h1)
    press 'every 2 s' +
    press 'every 1 s' +
    press 'every 2 s' -
    "$testbed" fail-unit h2
    sees '✗ h2 .*unhealthy .*units: '
    "$testbed" down h3
    sees '\? h3 .*unreachable'
    sees '2 hosts need a person; h[23]: un'
    press '▸. h1' G
    press '▸✗ h2' n
    press '▸\? h3' j
    press '▸✗ h2' k
    press '▸✗ h2' Down Up Home End PgUp PgDn Space g
    press 'filter: h2' / h 2 Enter
    press ' look +ssh ' Enter
    press 'asking h2 again' r
    press 'asking all hosts again' a
    press 'these keys' '?'
    press ' SEEN' Escape
    press 'STATE' Escape
    press 'next problem' Escape
    press 'click selects' m
    press "terminal's again" m
    "$testbed" start h3
    sees 'h3 +answers again'
    press 'plain lines: s brings' s
    shown | grep -Eq '^h3 +unreachable'
    [ "$(tmux_ display-message -p -t rest '#{alternate_on}')" = 0 ]
    press 'STATE' s
    tmux_ resize-window -t rest -x 80 -y 10
    press 'STATE' v # three hosts have room: the table alone, either way
    # One connection a host, kept.
    [ "$(logins h1)" = "$logins" ]
    printf 'q\n' >>"$T/typed"
    every_key_was_typed
    press 'code 0' q
    sees 'hosts in sync'
    shown | grep -Eq '(^| )icanon'
    [ "$(tmux_ display-message -p -t rest '#{alternate_on} #{cursor_flag}')" = "0 1" ]
    tmux_ kill-session -t rest
}

@test "without a terminal a line a change, and with --json an object a look" {
    "$FLEET" -i "$inventory" --state-dir "$T/state" status --watch >"$events" 2>"$text" </dev/null 3>&- &
    operator=$!
    await_event 30 '^h1 *in sync  generation 2'
    await_event 30 '^h3 *in sync'
    "$testbed" down h3
    await_event 60 '^h3 *unreachable: '
    kill -INT "$operator"
    end_update
    assert_exit 130
    "$testbed" start h3
    "$FLEET" -i "$inventory" --state-dir "$T/state" --json status --watch h1 >"$events" 2>"$text" </dev/null 3>&- &
    operator=$!
    await_event 30 '"host":"h1","reachable":true.*"in_sync":true'
    kill -TERM "$operator"
    end_update
    assert_exit 143
}
