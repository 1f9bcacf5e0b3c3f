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

# What was typed is noted, so that the last test can tell which keys of the help never were.
type_() { # name, keys
    printf '%s\n' "${@:2}" >>"$T/typed"
    tmux_ send-keys -t "$1" "${@:2}"
}

shown() { tmux_ capture-pane -p "${@:2}" -t "$1"; }

# Waits for a word on the screen, for 90 s at most: name, word.
sees() {
    local i
    for i in $(seq 360); do
        if shown "$1" | grep -qF -- "$2"; then return 0; fi
        sleep 0.25
    done
    printf 'no "%s" on:\n' "$2"
    shown "$1"
    return 1
}

sees_match() { # name, pattern
    local i
    for i in $(seq 360); do
        if shown "$1" | grep -Eq -- "$2"; then return 0; fi
        sleep 0.25
    done
    printf 'nothing like "%s" on:\n' "$2"
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
        'defaults.policy.max_parallel=1' 'defaults.policy.min_healthy_time="2s"' "${@:2}"
}

# The run is over on that screen, which stays: its journal played back gives the same cells, byte for
# byte. Name, sentence of the end.
same_in_playback() {
    local i
    sees "$1" "$2"
    type_ "$1" Escape Escape
    sees "$1" 'Enter detail' # the notices are gone
    shown "$1" -e | "$support/cells.py" >"$T/live"
    open_shell playback
    begin_fleet playback watch
    sees playback "$2"
    for i in $(seq 100); do
        shown playback -e | "$support/cells.py" >"$T/playback"
        cmp -s "$T/live" "$T/playback" && break
        sleep 0.2
    done
    diff "$T/live" "$T/playback"
    press playback 'code 0' q
    tmux_ kill-session -t playback
}

@test "a rollout is shown live; its end looks the same in playback" {
    roll_out v1 'defaults.policy.promote="manual"'
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'wave 1 of 2'
    press "$screen" 'stays open' o
    sees "$screen" 'wave 2 waits for promotion'
    sees "$screen" ' c go on  Enter detail' # the notice is gone
    press "$screen" 'asked to go on' c
    same_in_playback "$screen" 'over: done (exit 0)'
    grep -q healthy "$T/live"
    press "$screen" 'code 0' q
    sees "$screen" '4 of 4 hosts'
    given_back "$screen"
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
    press "$screen" 'stays open' o
    same_in_playback "$screen" 'over: failed (exit 3)'
    press "$screen" 'code 3' q
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

# The mouse as xterm reports it (SGR): a press of button 0, or 64 and 65 for the wheel; from 1.
click() { # name, button, column, row
    tmux_ send-keys -t "$1" -l "$(printf '\e[<%d;%d;%dM' "$2" "$3" "$4")"
}

@test "a host that failed is tried again; all are taken back" {
    local good bad
    good=$(system good v8)
    bad=$(system unit-fails v8b)
    inventory h1="$good" h2="$bad" h3="$good" h4="$good" 'defaults.policy.waves=[2, "100%"]' \
        'defaults.policy.max_parallel=2' 'defaults.policy.max_failed=4' \
        'defaults.policy.min_healthy_time="2s"' 'defaults.policy.prestage="all"'
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees_match "$screen" '[●✓] h1 ' # both have been granted, as all had been staged by then
    press "$screen" 'asked to pause' p
    sees "$screen" '↺ h2 ' # whoever needs a person stands first
    sees "$screen" '1 of 4 healthy'
    press "$screen" "try h2 again? type 'h2'" / h 2 Enter r
    press "$screen" 'asked to try h2 again' h 2 Enter
    press "$screen" 'h1 is not tried again: it has ended well' Escape / h 1 Enter r h 1 Enter
    type_ "$screen" Escape
    press "$screen" "roll back all? type 'all'" B
    press "$screen" 'asked to take back all hosts' a l l Enter
    type_ "$screen" c
    press "$screen" 'stays open' o
    same_in_playback "$screen" 'over: failed (exit 3)'
    press "$screen" 'code 3' q
    given_back "$screen"
    local events host
    events=$(journal)/journal.jsonl
    grep -q ' tries again: h2"' "$events"
    grep -q ' takes back all hosts"' "$events"
    grep -q '"host":"h2".*"to":"pending","reason":"retry"' "$events"
    for host in h1 h2; do
        grep -q "\"host\":\"$host\".*\"to\":\"rolled_back\"" "$events"
    done
}

@test "a host's guard counts down and its packages are named; the mouse selects and scrolls" {
    roll_out v9
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'probing'
    press "$screen" 'unless it is renewed' Enter
    shown "$screen" | grep -Eq 'armed: goes back to generation [0-9]+ in [0-9]+ s unless'
    press "$screen" 'libfoo' G
    shown "$screen" | grep -Eq 'libfoo 1\.2\.[0-9]+ → 1\.2\.9'
    press "$screen" 'PHASE' Escape
    # Unasked, the terminal's own mouse is left alone.
    [ "$(tmux_ display-message -p -t "$screen" '#{mouse_any_flag}')" = 0 ]
    press "$screen" 'click selects' m
    [ "$(tmux_ display-message -p -t "$screen" '#{mouse_standard_flag} #{mouse_sgr_flag}')" = "1 1" ]
    local row
    row=$(shown "$screen" | grep -n ' h3 ' | head -1 | cut -d: -f1)
    click "$screen" 0 6 "$row"
    sees_match "$screen" '▸. h3 '
    click "$screen" 65 6 "$row"
    sees_match "$screen" '▸. h4 '
    click "$screen" 64 6 "$row"
    sees_match "$screen" '▸. h[12] '
    press "$screen" "terminal's again" m
    [ "$(tmux_ display-message -p -t "$screen" '#{mouse_any_flag}')" = 0 ]
    sees "$screen" 'code 0'
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
    sees "$screen" 'starting the following units' # else there is nothing to find
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
    press "$screen" '▸' j j k Down Up Home End Space v v
    press "$screen" 'no host has failed' n
    press "$screen" 'plain lines: s brings' s
    [ "$(tmux_ display-message -p -t "$screen" '#{alternate_on}')" = 0 ]
    press "$screen" 'PHASE' s
    press "$screen" 'plain lines: s brings' q
    press "$screen" 'PHASE' s
    press "$screen" "type 'drain'" D
    type_ "$screen" d r a i n Enter
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

@test "three Ctrl-C leave at once and give the terminal back" {
    roll_out v11
    open_shell "$screen"
    begin_fleet "$screen" update --yes
    sees "$screen" 'activating'
    type_ "$screen" C-c C-c C-c
    sees "$screen" 'code 130'
    given_back "$screen"
    wait_until_same h1
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
    press "$screen" 'stays open' o
    press "$screen" "type 'abort'" A
    type_ "$screen" a b o r t Enter
    same_in_playback "$screen" 'go on with: fleet resume'
    press "$screen" 'code 130' q
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

# The help is made of the table that binds the keys: what stands there and was never typed above, in
# a run to real hosts, has no test.
@test "every key of the table was typed into a real rollout" {
    [ "$BATS_TEST_NUMBER" = "$(grep -c '^@test' "$BATS_TEST_FILENAME")" ]
    roll_out v10
    tmux_ new-session -d -s keys -x 120 -y 60 "env -u CI '$FLEET' --state-dir '$T/state' watch; sleep 600"
    tmux_ set-option -t keys status off
    tmux_ resize-window -t keys -x 120 -y 60
    sees keys 'keys'
    tmux_ send-keys -t keys '?'
    sees keys 'In the map:'
    local label key missing=()
    shown keys | sed -n '/ keys ─/,/In the map:/p' | grep -v 'In the map:\|× *not here:' | sed -n 's/^  \([^ ].\{0,11\}\)  *.*/\1/p' >"$T/labels"
    [ "$(wc -l <"$T/labels")" -ge 28 ]
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
