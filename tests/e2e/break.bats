#!/usr/bin/env bats
# A hostile world and a clumsy user: the operator's own disk, one machine twice, programs that never
# stop talking.
# shellcheck disable=SC2154

load fleet_driver

setup_file() { begin_hosts 1; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() {
    tell
    if mountpoint -q "$T/small"; then umount "$T/small"; fi
}

# assert_says PATTERN: on the errors.
assert_says() {
    grep -q -- "$1" "$text" || {
        echo "no '$1' there" >&2
        return 1
    }
}

# From the given state on the journal takes no more: what a full disk does in mid-run. (The signal
# that comes with the limit is ignored, as the write's error is what a full disk gives.)
update_until_disk_is_full_at() { # STATE
    mkfifo "$T/pipe"
    cat "$T/pipe" >"$events" &
    (
        trap '' XFSZ
        exec "$FLEET" -i "$inventory" --state-dir "$T/state" update --yes --json \
            >"$T/pipe" 2> >(cat >"$text") </dev/null 3>&-
    ) &
    operator=$!
    await_state 20 h1 "$1"
    prlimit --pid "$operator" --fsize=1
    end_update
    rm "$T/pipe"
}

# A disk that takes what is written and can't be made to keep it: while $T/lost is there, syncing the
# journal fails.
make_lost_disk() {
    cc -shared -fPIC -x c -o "$T/lost.so" - <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
    char link[64], path[4096] = "";
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof(path) - 1) > 0 && strstr(path, "journal.jsonl") != NULL &&
        access(getenv("LOST"), F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
C
}

# WORD...: `fleet update` onto that disk.
update_on_lost_disk() {
    env LD_PRELOAD="$T/lost.so" LOST="$T/lost" \
        ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0" \
        "$FLEET" -i "$inventory" --state-dir "$T/state" update --yes --json \
        >"$events" 2>"$text" </dev/null 3>&-
}

@test "what is to be done is on the disk before it is done, or it is not done" {
    make_lost_disk
    inventory h1="$(system good v1)" 'hosts.h1.policy.min_healthy_time="3s"'
    touch "$T/lost"
    status=0
    update_on_lost_disk || status=$?
    assert_exit 1
    run ! grep -q '"type":"grant"' "$events"
    assert_host h1 "$v0" 1
    on h1 'test ! -e /run/fleet/lock'
    # Written down and not kept: the commit is not granted, and the host goes back.
    rm "$T/lost"
    update_on_lost_disk &
    operator=$!
    await_state 30 h1 probing
    touch "$T/lost"
    end_update
    rm "$T/lost"
    assert_exit 1
    assert_says "journal.jsonl can't be written.*Input/output error"
    run ! grep -q '"type":"grant".*"act":"commit"' "$events"
    await_host 20 h1 "$v0" 1
}

@test "no room for the journal: nothing is started, nothing is left" {
    inventory h1="$(system good v1)"
    mkdir -p "$T/small"
    mount -t tmpfs -o size=64k none "$T/small"
    status=0
    "$FLEET" -i "$inventory" --state-dir "$T/small/state" update --yes >"$events" 2>"$text" \
        </dev/null 3>&- || status=$?
    assert_exit 1
    assert_says "nothing was started; free space there"
    [ -z "$(ls "$T/small/state/runs")" ]
    assert_host h1 "$v0" 1
}

@test "a journal that fills up in mid-run: the host goes back, the run ends with 1" {
    inventory h1="$(system good v1)"
    for state in activating probing; do
        update_until_disk_is_full_at "$state"
        assert_exit 1
        assert_says "journal.jsonl can't be written"
        assert_says "fleet resume"
        # What is not on disk was not granted, and nobody is told that it was.
        run ! grep -q '"type":"grant".*"act":"commit"' "$events"
        await_host 20 h1 "$v0" 1
    done
}

@test "a state folder that is removed in mid-run: nothing more is granted, the host goes back" {
    inventory h1="$(system good v1)" 'hosts.h1.policy.min_healthy_time="5s"'
    for state in staging probing; do
        start_update
        await_state 20 h1 "$state"
        rm -rf "$T/state"
        end_update
        assert_exit 1
        assert_says "journal.jsonl was removed while the run goes on"
        assert_says "begin a new run"
        run ! grep -q "fleet resume" "$text"
        await_host 20 h1 "$v0" 1
    done
}

@test "a disk that fills up in mid-run leaves the room that the journal has taken" {
    inventory h1="$(system good v1)"
    mkdir -p "$T/small"
    mount -t tmpfs -o size=1m none "$T/small"
    "$FLEET" -i "$inventory" --state-dir "$T/small/state" update --yes --json \
        >"$events" 2>"$text" </dev/null 3>&- &
    operator=$!
    await_state 20 h1 staging
    dd if=/dev/zero of="$T/small/full" bs=4k 2>/dev/null || true
    end_update
    assert_exit 0
    assert_host h1 "$(system good v1)" 2
    grep -q '"type":"run_end"' "$T"/small/state/runs/*/journal.jsonl
}

@test "one machine under two names: one of them, and said so; with --lock-timeout both" {
    inventory h1="$(system good v2)" h1
    python3 - "$inventory" <<'PYTHON'
import json, sys
with open(sys.argv[1]) as file:
    fleet = json.load(file)
fleet["hosts"]["again"] = dict(fleet["hosts"]["h1"])
with open(sys.argv[1], "w") as file:
    json.dump(fleet, file)
PYTHON
    update --now --parallel 2
    assert_exit 7
    assert_says "on the same machine under another name"
    [ "$(event end)" = 'run_end 7 {"healthy": 1, "skipped": 1}' ]
    assert_host h1 "$(system good v2)" 3
    update --now --parallel 2 --lock-timeout 30s
    assert_exit 0
    assert_host h1 "$(system good v2)" 3
}

@test "a build command that never stops printing is ended" {
    inventory h1 'hosts.h1.system={"command": ["yes", "/nix/store/x"]}'
    update
    assert_exit 9
    assert_says "on its standard output, where one store path is expected"
    assert_host h1 "$(system good v2)" 3
}

@test "an inventory without hosts" {
    echo '{"version": 1, "hosts": {}}' >"$inventory"
    update
    assert_exit 0
    assert_says "has no hosts: nothing to do"
}
