#!/usr/bin/env bats
# The dashboard's screens, as tmux sees them with their colours, held against
# tests/golden/dashboard/STORY-COLSxROWS.txt. The stories are journals: good, rollback and pause were
# recorded on the testbed, `many` writes that of 300 hosts, and an empty fleet has two events.
#
# FLEET_GOLDEN_UPDATE=1 writes the files anew; look at the difference before committing it.

bats_require_minimum_version 1.5.0

setup_file() {
    command -v tmux >/dev/null || skip "tmux is missing: scripts/packages test installs it"
    export FILES=$BATS_TEST_DIRNAME/dashboard
    export STATE=$BATS_FILE_TMPDIR/state
    export SOCKET=$BATS_FILE_TMPDIR/tmux
    export TZ=UTC LC_ALL=C.UTF-8 COLORTERM=
    unset CI NO_COLOR
    local story
    for story in good rollback pause strange; do
        story_from "$story" "$FILES/$story.jsonl"
    done
    # As it was 3.3 s after its start: in the middle of its builds.
    story_from building <(head -n 106 "$FILES/good.jsonl")
    story_from many <("$FILES/many" 300 150)
    story_from thousand <("$FILES/many" 1000 420)
    story_from empty "$FILES/empty.jsonl"
    # A server without a session ends, and would while the next test begins.
    tmux_ new-session -d -s hold 'sleep 600' 3>&-
}

teardown_file() {
    tmux -S "$SOCKET" kill-server 2>/dev/null || true
}

story_from() { # story, journal: into a state folder of its own
    mkdir -p "$STATE/$1/runs/20261122-181100-m2p0aa"
    cp --no-preserve=mode "$2" "$STATE/$1/runs/20261122-181100-m2p0aa/journal.jsonl"
}

tmux_() { tmux -S "$SOCKET" -f /dev/null "$@"; }

# Starts `fleet watch` of a story on a terminal of that size: name, story, columns, rows, environment.
open_screen() {
    tmux_ new-session -d -s "$1" -x "$3" -y "$4" \
        "env TERM=tmux-256color ${5:-} '$FLEET' --state-dir '$STATE/$2' watch; echo \"left \$?\"; stty -a; sleep 600"
    tmux_ set-option -t "$1" status off
    tmux_ resize-window -t "$1" -x "$3" -y "$4"
}

# The process of `fleet watch` in that session.
program_of() { pgrep -P "$(tmux_ display-message -p -t "$1" '#{pane_pid}')" -f 'watch$' | head -1; }

capture() { tmux_ capture-pane -p "${@:2}" -t "$1"; }

cells() { capture "$1" -e | "$BATS_TEST_DIRNAME/../support/cells.py"; }

# Waits until the screen stands still (for longer than frames are apart) and holds the word: name, word.
settled() {
    local before='' now same=0 i
    for i in $(seq 600); do
        now=$(capture "$1" -e)
        if [ "$now" = "$before" ]; then same=$((same + 1)); else same=0; fi
        if [ "$same" -ge 4 ] && [[ $now == *$2* ]]; then
            return 0
        fi
        before=$now
        sleep 0.12
    done
    printf 'no %s on:\n%s\n' "$2" "$now"
    return 1
}

press() { # name, keys
    tmux_ send-keys -t "$1" "${@:2}"
    sleep 0.2
}

# Compares the screen with its file, which it may still be on the way to: name, file.
matches() {
    local file=$FILES/$2.txt i
    if [ -n "${FLEET_GOLDEN_UPDATE:-}" ]; then
        sleep 1
        cells "$1" >"$file"
    fi
    for i in $(seq 100); do
        cells "$1" >"$BATS_TEST_TMPDIR/screen"
        if cmp -s "$file" "$BATS_TEST_TMPDIR/screen"; then
            return 0
        fi
        sleep 0.2
    done
    diff "$file" "$BATS_TEST_TMPDIR/screen"
}

sizes_of() { # story, word
    local size
    for size in 40x10 80x24 120x40 200x60; do
        open_screen "$1-$size" "$1" "${size%x*}" "${size#*x}"
    done
    for size in 40x10 80x24 120x40 200x60; do
        settled "$1-$size" "$2"
        matches "$1-$size" "$1-$size"
        tmux_ kill-session -t "$1-$size"
    done
}

@test "a good rollout" { sizes_of good demo; }

@test "a rollback" { sizes_of rollback demo; }

@test "a pause" { sizes_of pause paused; }

@test "300 hosts" { sizes_of many prod; }

@test "1000 hosts" { sizes_of thousand prod; }

@test "an empty fleet" { sizes_of empty demo; }

# The fleet at rest, of the program that plays looks at a fleet that isn't there: one of each kind, or many.
open_rest() { # name, hosts, columns, rows, environment
    tmux_ new-session -d -s "$1" -x "$3" -y "$4" \
        "env TERM=tmux-256color ${5:-} '$FLEET_TEST_PROGRAMS/golden_rest_player' $2; echo \"left \$?\"; stty -a; sleep 600"
    tmux_ set-option -t "$1" status off
    tmux_ resize-window -t "$1" -x "$3" -y "$4"
}

@test "the fleet at rest: eight hosts, and 300" {
    local size
    for size in 40x10 80x24 120x40 200x60; do
        open_rest "rest-$size" 8 "${size%x*}" "${size#*x}"
        open_rest "rest-many-$size" 300 "${size%x*}" "${size#*x}"
    done
    for size in 40x10 80x24 120x40 200x60; do
        settled "rest-$size" 'at rest'
        matches "rest-$size" "rest-$size"
        tmux_ kill-session -t "rest-$size"
        settled "rest-many-$size" 'at rest'
        matches "rest-many-$size" "rest-many-$size"
        tmux_ kill-session -t "rest-many-$size"
    done
}

@test "the fleet at rest: detail, keys, one cell and back, lines and back, ASCII, leaving" {
    open_rest rest 8 80 24
    settled rest 'at rest'
    press rest Enter
    matches rest rest-detail
    press rest Escape '?'
    matches rest rest-keys
    press rest Escape
    tmux_ resize-window -t rest -x 1 -y 1
    sleep 0.3
    tmux_ resize-window -t rest -x 80 -y 24
    settled rest 'at rest'
    matches rest rest-80x24
    press rest s
    settled rest 'plain lines: s brings'
    [ "$(tmux_ display-message -p -t rest '#{alternate_on}')" = 0 ]
    capture rest | grep -q '^node004  unhealthy: web: '
    press rest s
    matches rest rest-80x24
    press rest q
    settled rest 'left 0'
    capture rest | grep -q '^prod: 2 of 8 hosts in sync'
    capture rest | grep -Eq '(^| )icanon'
    [ "$(tmux_ display-message -p -t rest '#{alternate_on} #{cursor_flag}')" = "0 1" ]
    tmux_ kill-session -t rest
    open_rest ascii 300 80 24 'LC_ALL=C NO_COLOR=1'
    settled ascii 'at rest'
    matches ascii rest-many-ascii
    LC_ALL=C run -1 grep -q $'[\x80-\xff]' "$BATS_TEST_TMPDIR/screen"
    run -1 grep -Eq '<([0-9]+,)*3[1-7][,>]' "$BATS_TEST_TMPDIR/screen"
    tmux_ kill-session -t ascii
}

@test "detail, log, builds, keys and a filter" {
    open_screen views rollback 80 24
    settled views demo
    press views Enter
    matches views rollback-detail
    press views Escape l
    matches views rollback-log
    press views Escape b
    matches views rollback-builds
    press views Escape '?'
    matches views keys
    press views Escape / d b 2 Enter
    matches views rollback-filter
    tmux_ kill-session -t views
}

@test "the tree of the builds, while they are under way" {
    local size
    for size in 80x24 120x40; do
        open_screen "tree$size" building "${size%x*}" "${size#*x}"
        settled "tree$size" demo
        press "tree$size" b
        matches "tree$size" "building-$size"
        tmux_ kill-session -t "tree$size"
    done
}

@test "without colour nothing is told by colour alone; in ASCII no sign is lost" {
    open_screen bare rollback 80 24 NO_COLOR=1
    settled bare demo
    matches bare rollback-no-color
    run -1 grep -Eq '<([0-9]+,)*3[1-7][,>]' "$BATS_TEST_TMPDIR/screen"
    tmux_ kill-session -t bare
    open_screen ascii rollback 80 24 LC_ALL=C
    settled ascii demo
    matches ascii rollback-ascii
    LC_ALL=C run -1 grep -q $'[\x80-\xff]' "$BATS_TEST_TMPDIR/screen"
    tmux_ kill-session -t ascii
}

@test "wide and combining characters keep their columns, hostile bytes do nothing" {
    local mode
    open_screen strange strange 80 24
    settled strange failed
    matches strange strange
    # None of it reached the terminal: no title, and the cursor still hidden on the other screen.
    [[ $(tmux_ display-message -p -t strange '#{pane_title}') != *owned* ]]
    [ "$(tmux_ display-message -p -t strange '#{alternate_on} #{cursor_flag}')" = "1 0" ]
    press strange l
    matches strange strange-log
    tmux_ kill-session -t strange
    open_screen strange strange 40 10
    settled strange failed
    matches strange strange-40x10
    tmux_ kill-session -t strange
}

@test "what a library prints on standard error is shown afterwards, not across the screen" {
    open_screen stray rollback 80 24
    settled stray demo
    local before pid
    before=$(cells stray)
    pid=$(program_of stray)
    echo "library: something is odd" >>"/proc/$pid/fd/2"
    sleep 1.5 # a frame is drawn every second
    [ "$(cells stray)" = "$before" ]
    press stray q
    settled stray 'left 0'
    capture stray | grep -q '^library: something is odd$'
    tmux_ kill-session -t stray
    # A crash shows it as well.
    open_screen crash rollback 80 24 "ASAN_OPTIONS=handle_segv=0:handle_abort=0"
    settled crash demo
    pid=$(program_of crash)
    echo "library: assertion failed" >>"/proc/$pid/fd/2"
    kill -s ABRT "$pid"
    settled crash left
    capture crash | grep -q '^library: assertion failed$'
    tmux_ kill-session -t crash
}

# With FLEET_FULL=1 a probe every five seconds instead of two minutes: 864,000 of them.
@test "a day's worth of events in playback leaks nothing, and writes no more than it must" {
    local how=(--every 120)
    [ -z "${FLEET_FULL:-}" ] || how=(--every 5 --speed 1000)
    run -0 "$BATS_TEST_DIRNAME/../support/play_day.py" "${how[@]}"
    echo "$output"
}

@test "resized to one cell and back the screen is the same, in each view" {
    open_screen sized good 80 24
    local view before
    for view in Escape Enter l b '?'; do
        settled sized demo
        press sized Escape
        press sized "$view"
        settled sized demo
        before=$(cells sized)
        tmux_ resize-window -t sized -x 1 -y 1
        sleep 0.3
        tmux_ resize-window -t sized -x 200 -y 60
        sleep 0.3
        tmux_ resize-window -t sized -x 80 -y 24
        settled sized demo
        diff <(echo "$before") <(echo "$(cells sized)")
    done
    tmux_ kill-session -t sized
}

@test "leaving gives the screen back and leaves the summary" {
    open_screen left rollback 80 24
    settled left demo
    press left q
    settled left 'left 0'
    capture left >"$BATS_TEST_TMPDIR/after"
    grep -q 'rolled back' "$BATS_TEST_TMPDIR/after"
    grep -q 'fleet show' "$BATS_TEST_TMPDIR/after"
    grep -Eq '(^| )icanon' "$BATS_TEST_TMPDIR/after"
    grep -Eq '(^| )echo( |$)' "$BATS_TEST_TMPDIR/after"
    [ "$(tmux_ display-message -p -t left '#{alternate_on} #{cursor_flag}')" = "0 1" ]
    tmux_ kill-session -t left
}

# What was read by then says nothing about the run; that it could be resumed least of all.
@test "a journal that a newer fleet went on with is said to be one, and the screen is given back" {
    story_from newer <(head -n 50 "$FILES/good.jsonl"; sed -n '51s/"v":1,/"v":2,/p' "$FILES/good.jsonl")
    open_screen newer newer 80 24
    settled newer 'left 1'
    capture newer -J >"$BATS_TEST_TMPDIR/after"
    grep -q 'journal.jsonl:51: a newer fleet wrote it (events of version 2' "$BATS_TEST_TMPDIR/after"
    run -1 grep -q 'fleet resume' "$BATS_TEST_TMPDIR/after"
    [ "$(tmux_ display-message -p -t newer '#{alternate_on} #{cursor_flag}')" = "0 1" ]
    tmux_ kill-session -t newer
}

# Of an operator who was ended in the middle of a write, or whose folder was copied while it wrote.
@test "a journal cut in mid-line shows what it tells" {
    story_from cut <(head -c 30000 "$FILES/good.jsonl")
    open_screen cut cut 80 24
    settled cut 'its process is gone; go on with: fleet resume'
    capture cut | grep -q 'db3 .* building'
    press cut q
    settled cut 'left 0'
    tmux_ kill-session -t cut
}

@test "a crash gives the screen back" {
    local signal pid
    for signal in SEGV ABRT TERM HUP QUIT; do
        # AddressSanitizer would take this for a crash of the program's own.
        open_screen "crash$signal" rollback 80 24 "ASAN_OPTIONS=handle_segv=0:handle_abort=0"
        settled "crash$signal" demo
        pid=$(program_of "crash$signal")
        kill -s "$signal" "$pid"
        settled "crash$signal" left
        capture "crash$signal" | grep -Eq '(^| )icanon'
        [ "$(tmux_ display-message -p -t "crash$signal" '#{alternate_on} #{cursor_flag}')" = "0 1" ]
        tmux_ kill-session -t "crash$signal"
    done
}

@test "a dumb terminal, a pipe and CI get plain lines" {
    local how
    for how in TERM=dumb CI=1; do
        open_screen plain rollback 100 24 "$how"
        settled plain 'left 0'
        [ "$(tmux_ display-message -p -t plain '#{alternate_on}')" = 0 ]
        tmux_ kill-session -t plain
    done
    run -0 "$FLEET" --state-dir "$STATE/rollback" watch
    [[ $output != *$'\e'* ]]
    [[ $output == *'rolled back'* ]]
}

# As under nohup, where no signal ends them: at a terminal that nobody reads there is nothing to show.
@test "a terminal that goes away ends whoever only looks" {
    cat >"$BATS_TEST_TMPDIR/gone.py" <<'PY'
import os, pty, select, signal, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm-256color")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
while b"leave" not in shown:
    if not select.select([fd], [], [], 60)[0]:
        sys.exit(f"nothing more came after {shown!r}")
    shown += os.read(fd, 65536)
os.close(fd)
for _ in range(600):
    if os.waitpid(pid, os.WNOHANG)[0] == pid:
        sys.exit(0)
    time.sleep(0.1)
os.kill(pid, signal.SIGKILL)
sys.exit("it goes on without a terminal")
PY
    run -0 python3 "$BATS_TEST_TMPDIR/gone.py" "$FLEET" --state-dir "$STATE/rollback" watch
    run -0 python3 "$BATS_TEST_TMPDIR/gone.py" "$FLEET_TEST_PROGRAMS/golden_rest_player" 8
}
