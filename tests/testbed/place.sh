# shellcheck shell=bash
# Where a testbed lives: its folder, its slot (which is its part of 127.77.0.0/16 and of
# 10.177.0.0/16), its operator key and its control group.
#
# A slot is taken by mkdir, which is atomic, so that several testbeds may start at once. A slot
# whose folder is gone is free again.

# Sets: slot, cgroup (a folder, or "" where there is no cgroup v2), key.
place_load() {
    slot=$(cat "$state/slot")
    key=$state/key
    cgroup=
    [ ! -f "$state/cgroup" ] || cgroup=$(cat "$state/cgroup")
}

# Held until this command ends: nothing starts hosts in a folder that is being destroyed.
place_lock() {
    exec 8<"$state"
    flock -w 120 8 || die "another testbed command has been at work in $state for two minutes"
    [ "$state" -ef /proc/self/fd/8 ] || die "$state was destroyed meanwhile"
}

place_make() {
    mkdir -p "$state/hosts" "$state/gcroots" "$slots"
    chmod 755 "$state"
    [ -f "$state/slot" ] || place_take_slot
    [ -f "$state/key" ] || ssh-keygen -q -t ed25519 -N '' -C fleet-testbed -f "$state/key"
    slot=$(cat "$state/slot")
    place_make_cgroup
    place_load
    place_raise_limits
}

place_take_slot() {
    local number owner
    for number in $(seq 1 250); do
        owner=$(cat "$slots/$number/owner" 2>/dev/null || true)
        if [ -n "$owner" ] && [ "$(cat "$owner/slot" 2>/dev/null)" != "$number" ] && [ ! -d "$owner/hosts" ]; then
            # mv is the atomic step here: of two that see the leftover, one takes it away.
            mv -T "$slots/$number" "$slots/.old-$number-$$" 2>/dev/null && rm -rf "$slots/.old-$number-$$"
        fi
        if mkdir "$slots/$number" 2>/dev/null; then
            echo "$state" >"$slots/$number/owner"
            echo "$number" >"$state/slot"
            return
        fi
    done
    die "all 250 slots in $slots are taken: run 'testbed destroy' for those not needed any more"
}

# Each host gets a control group of its own (version 2), so that its systemd sees only its own
# processes and a power cut reaches each of them. Without cgroup v2 the lighter kind still works:
# its PID namespace ends with its first process.
place_make_cgroup() {
    local top
    top=$(findmnt -n -t cgroup2 -o TARGET | head -1)
    if [ -z "$top" ]; then
        top=/run/fleet-testbed-cgroup2
        mkdir -p "$top"
        mount -t cgroup2 cgroup2 "$top" 2>/dev/null || return 0
    fi
    mkdir -p "$top/fleet-testbed-$slot" 2>/dev/null || return 0
    echo "$top/fleet-testbed-$slot" >"$state/cgroup"
}

# Each systemd takes some ten inotify instances; the kernel's default of 128 is enough for a dozen
# hosts.
place_raise_limits() {
    local knob=/proc/sys/fs/inotify/max_user_instances
    [ "$(cat $knob)" -ge 4096 ] || echo 4096 >$knob 2>/dev/null ||
        note "cannot raise $knob: with more than a dozen hosts some will not boot"
}

place_remove() {
    place_load
    [ -z "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    local mine=
    [ "$(cat "$slots/$slot/owner" 2>/dev/null)" != "$state" ] || mine=$slots/$slot
    rm -rf "$state"
    [ -z "$mine" ] || rm -rf "$mine"
}
