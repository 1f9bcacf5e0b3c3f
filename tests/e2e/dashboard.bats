#!/usr/bin/env bats
# The dashboard in a real terminal (tmux) on rollouts to real hosts: every key does what the help says,
# and the terminal is given back whatever happens. What the screens look like is in
# tests/golden/dashboard.bats.

bats_require_minimum_version 1.5.0

load fleet_driver.bash

setup_file() {
    command -v tmux >/dev/null || skip "tmux is missing: scripts/packages test installs it"
    begin_hosts 4
    export SOCKET=$BATS_FILE_TMPDIR/tmux TZ=UTC LC_ALL=C.UTF-8
    unset NO_COLOR
}

teardown_file() {
    tmux -S "$SOCKET" kill-server 2>/dev/null || true
    end_hosts
}

setup() {
    load_hosts
    screen=s$BATS_TEST_NUMBER
}

# A test that failed leaves no run behind that holds the hosts: two signals end it.
teardown() {
    local pid turn
    for turn in 1 2; do
        for pid in $(pgrep -f -- "--state-dir $T/state .*update"); do
            kill -INT "$pid" || true
        done
        sleep 1
    done
    tmux -S "$SOCKET" kill-server 2>/dev/null 3>&- || true
}

tmux_() { tmux -S "$SOCKET" -f /dev/null "$@" 3>&-; }

# A shell of its own with job control, 80x24: name.
open_shell() {
    tmux_ new-session -d -s "$1" -x 80 -y 24 "env -u CI PS1='$ ' TERM=tmux-256color bash --norc -i"
    tmux_ set-option -t "$1" status off
    tmux_ resize-window -t "$1" -x 80 -y 24
}

# fleet WORD... in that shell; its exit code is printed: name, words.
begin_fleet() {
    local name=$1
    shift
    echo "'$FLEET' -i '$inventory' --state-dir '$T/state' $*; echo \"code \$?\"" >"$T/$name.sh"
    type_ "$name" ". $T/$name.sh" Enter
}

type_() { # name, keys
    tmux_ send-keys -t "$1" "${@:2}"
}

shown() { tmux_ capture-pane -p "${@:2}" -t "$1"; }

# Waits for a word on the screen, for 25 s at most: name, word.
sees() {
    local i
    for i in $(seq 100); do
        if shown "$1" | grep -qF -- "$2"; then return 0; fi
        sleep 0.25
    done
    printf 'no "%s" on:\n' "$2"
    shown "$1"
    return 1
}

press() { # name, word to see after, keys
    type_ "$1" "${@:3}"
    sees "$1" "$2"
}

given_back() { # name
    [ "$(tmux_ display-message -p -t "$1" '#{alternate_on} #{cursor_flag}')" = "0 1" ]
    # The shell's line editor changes the mode itself; a command's is the terminal's own.
    type_ "$1" "stty -a | tr ' ' '\n' | grep -x -e icanon -e echo | paste -sd," Enter
    sees "$1" icanon,echo
}

journal() { # the latest run's
    ls -d "$T"/state/runs/*/ | tail -1
}

roll_out() { # version: of all four hosts, one at a time, in two waves
    local top
    top=$(system good "$1")
    inventory h1="$top" h2="$top" h3="$top" h4="$top" 'defaults.policy.waves=[1, "100%"]' \
        'defaults.policy.max_parallel=1' 'defaults.policy.min_healthy_time="2s"'
}

@test "a rollout is shown live; its end looks the same in playback" {
    roll_out v1
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'wave 1 of 2'
    press "$screen" 'stays open' o
    sees "$screen" 'over: done (exit 0)'
    sleep 6 # the notices are gone
    shown "$screen" -e | "$support/cells.py" >"$T/live"
    open_shell playback
    begin_fleet playback watch
    sees playback 'over: done (exit 0)'
    sleep 0.5
    shown playback -e | "$support/cells.py" >"$T/playback"
    diff "$T/live" "$T/playback"
    grep -q healthy "$T/live"
    press "$screen" 'code 0' q
    sees "$screen" '4 of 4 hosts'
    given_back "$screen"
    press playback 'code 0' q
}

@test "pause, go on, skip, roll back by hand, all journaled" {
    roll_out v2
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'activating'
    press "$screen" 'asked to pause' p
    sees "$screen" 'paused by a person'
    sees "$screen" '1 of 4 healthy'
    sleep 3
    shown "$screen" | grep -qF '1 of 4 healthy'
    press "$screen" 'asked to skip h4' / h 4 Enter x
    type_ "$screen" Escape
    sleep 0.2
    press "$screen" 'roll back h1?' / h 1 Enter R
    press "$screen" 'not confirmed' n o Enter
    press "$screen" 'roll back h1?' R
    press "$screen" 'asked to take back h1' h 1 Enter
    press "$screen" 'asked to go on' Escape c
    sees "$screen" 'code 3'
    given_back "$screen"
    local events word
    events=$(journal)/journal.jsonl
    for word in ' pauses the run"' ' skips h4"' ' takes back h1"' '"type":"promote"' \
        '"host":"h1".*"to":"rolled_back"' '"host":"h4".*"to":"skipped"' \
        '"host":"h2".*"to":"healthy"'; do
        grep -q -- "$word" "$events"
    done
    run -1 grep -q '"host":"h4".*"to":"activating"' "$events"
}

@test "views and settings" {
    roll_out v3
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'activating'
    press "$screen" 'asked to pause' p
    press "$screen" 'TIMELINE' Enter
    press "$screen" 'PHASE' Escape
    press "$screen" 'log of all hosts' l
    press "$screen" 'log of h' a
    press "$screen" '· wraps' w
    press "$screen" 'search:' /
    press "$screen" '/units' u n i t s Enter
    press "$screen" 'lines · wraps' n
    type_ "$screen" N f g G PgUp PgDn
    press "$screen" 'PHASE' Escape Escape
    press "$screen" 'builds ·' b
    press "$screen" '↓' '?'
    press "$screen" 'goes on as plain' PgDn
    press "$screen" 'PHASE' Escape Escape Escape
    press "$screen" 'click selects' m
    press "$screen" "terminal's again" m
    press "$screen" '▸' j j k Down Up Home End v v
    press "$screen" 'no host has failed' n
    press "$screen" 'plain lines: s brings' s
    [ "$(tmux_ display-message -p -t "$screen" '#{alternate_on}')" = 0 ]
    press "$screen" 'PHASE' s
    press "$screen" 'plain lines: s brings' q
    press "$screen" 'PHASE' s
    press "$screen" "type 'drain'" D
    press "$screen" 'asked to drain' d r a i n Enter
    sees "$screen" 'code 130'
    given_back "$screen"
    sees "$screen" 'fleet resume'
}

@test "Ctrl-Z and fg, a resize meanwhile, Ctrl-C" {
    roll_out v4
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'activating'
    press "$screen" 'Stopped' C-z
    given_back "$screen"
    tmux_ resize-window -t "$screen" -x 60 -y 15
    press "$screen" 'PHASE' fg Enter
    tmux_ resize-window -t "$screen" -x 1 -y 1
    tmux_ resize-window -t "$screen" -x 80 -y 24
    type_ "$screen" C-c
    sees "$screen" 'go on with: fleet resume'
    given_back "$screen"
    tmux_ kill-session -t "$screen"
}

@test "watch in a second terminal follows, and asks nothing of the run" {
    roll_out v6
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'activating'
    open_shell second
    begin_fleet second watch
    sees second 'wave 1 of 2'
    press second 'read-only' p
    press second 'read-only' R
    run -1 grep -q pauses "$(journal)/journal.jsonl"
    sees second 'over: done'
    press second 'code 0' q
    sees "$screen" 'code 0'
}

@test "a terminal that takes nothing any more doesn't hold the rollout up" {
    roll_out v7
    cat >"$T/deaf.py" <<'PY'
import os, pty, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm-256color")
    os.environ.pop("CI", None)
    os.execv(sys.argv[1], sys.argv[1:])
for _ in range(240):
    time.sleep(0.25)
    done = [name for name in os.popen("ls -d $T/state/runs/*/ | tail -1").read().split()
            if '"type":"run_end"' in open(name + "journal.jsonl").read()]
    if done and _ > 8:
        break
else:
    sys.exit("the rollout did not end")
os.close(fd)
PY
    run -0 python3 "$T/deaf.py" "$FLEET" -i "$inventory" --state-dir "$T/state" update --yes
    grep -q '"result":"done"' "$(journal)/journal.jsonl"
}

# The last one: an aborted run's locks are held until their lease ends.
@test "abort leaves at once with the guards armed" {
    roll_out v5
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'probing'
    press "$screen" "type 'abort'" A
    type_ "$screen" a b o r t Enter
    sees "$screen" 'code 130'
    given_back "$screen"
    sees "$screen" 'fleet resume'
    wait_until_same h1
}

# The guard takes the host back by itself: its running system is its profile's again.
wait_until_same() {
    local i
    for i in $(seq 60); do
        if "$testbed" ssh "${1#h}" '[ "$(readlink -f /run/current-system)" = "$(readlink -f /nix/var/nix/profiles/system)" ]'; then
            return 0
        fi
        sleep 0.5
    done
    return 1
}
