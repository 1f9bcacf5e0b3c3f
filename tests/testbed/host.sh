# shellcheck shell=bash
# One host: made once, then started, cut off from power, frozen, filled.
#
# hosts/I holds what outlives a power cut (upper, work, nix, boot) and what describes the host:
# kind, name, address, net, flavour, console.log. Everything mounted is mounted by host/launch in a
# mount namespace of the host's own.

host_dir() { echo "$state/hosts/$1"; }

host_numbers() { ls "$state/hosts" 2>/dev/null | sort -n; }

number_of() { # 3 or h3
    local i=${1#h}
    [[ $i =~ ^[0-9]+$ ]] || die "'$1' is no host: say 3 or h3"
    echo "$i"
}

host_need() {
    [ -d "$(host_dir "$1")" ] || die "there is no host h$1 in $state; 'testbed status' lists them"
}

host_address() { cat "$(host_dir "$1")/address"; }

# Made at most once; a second `up` finds it and leaves it as it is.
host_make() { # number, kind, net or "", flavours
    local i=$1 kind=$2 net=$3 flavours=$4 dir flavour
    dir=$(host_dir "$i")
    [ ! -f "$dir/complete" ] || return 0
    rm -rf "$dir"
    mkdir -p "$dir/work" "$dir/root"
    cp -a "$state/template/upper" "$dir/upper"
    cp -a "$state/template/nix" "$dir/nix"
    if [ -f "$state/template/boot.img" ]; then
        cp --sparse=always "$state/template/boot.img" "$dir/boot.img"
        mkdir "$dir/boot"
    else
        cp -a "$state/template/boot" "$dir/boot"
    fi
    echo "$kind" >"$dir/kind"
    echo "h$i" >"$dir/name"
    echo "127.77.$slot.$i" >"$dir/address"
    [ -z "$net" ] || host_make_network "$i"
    echo "$flavours" | xargs >"$dir/flavour"
    host_make_identity "$i"
    for flavour in $flavours; do host_apply_flavour "$i" "$flavour"; done
    touch "$dir/complete"
}

host_make_identity() {
    local dir upper
    dir=$(host_dir "$1")
    upper=$dir/upper
    tr -d - </proc/sys/kernel/random/uuid >"$upper/etc/machine-id"
    cat "$dir/name" >"$upper/etc/hostname"
    echo "127.0.1.1 $(cat "$dir/name")" >>"$upper/etc/hosts"
    host_address "$1" >"$upper/etc/fleet-testbed/address"
    ssh-keygen -q -t ed25519 -N '' -C "$(cat "$dir/name")" -f "$upper/etc/ssh/ssh_host_ed25519_key"
    echo "ListenAddress $(host_address "$1")" >>"$upper/etc/ssh/sshd_config"
}

host_apply_flavour() { # number, flavour
    local dir upper
    dir=$(host_dir "$1")
    upper=$dir/upper
    case $2 in
    fish)
        [ -x /usr/bin/fish ] || die "flavour fish: install the package fish"
        sed -i -E 's|^(root:.*):[^:]*$|\1:/usr/bin/fish|' "$upper/etc/passwd"
        ;;
    noisy) echo 'echo "Welcome to $(hostname), have a nice day"' >"$upper/root/.bashrc" ;;
    ops | opsp) ;; # Both users are on each host; the inventory logs in as this one.
    small-nix)
        mke2fs -q -t ext4 -m 0 -d "$dir/nix" "$dir/nix.img" 48M >/dev/null
        rm -rf "$dir/nix"
        mkdir "$dir/nix"
        ;;
    *) die "there is no flavour '$2': fish, noisy, ops, opsp, small-nix" ;;
    esac
}

# A network of the host's own: a namespace and a pair of interfaces, so that a version can take the
# link away. Its address is then 10.177.SLOT.x, one end of a network of four.
host_make_network() {
    local i=$1 dir space end base
    dir=$(host_dir "$i")
    space=fleet-testbed-$slot-$i
    end=ftb$slot-$i
    [ "$i" -le 62 ] || die "--net works for h1 to h62"
    base=$((i * 4))
    host_remove_network "$i"
    ip netns add "$space"
    ip link add "$end" type veth peer name host0 netns "$space"
    ip addr add "10.177.$slot.$((base + 1))/30" dev "$end"
    ip link set "$end" up
    ip -n "$space" link set lo up
    ip -n "$space" addr add "10.177.$slot.$((base + 2))/30" dev host0
    echo "$space" >"$dir/net"
    echo "10.177.$slot.$((base + 2))" >"$dir/address"
}

host_remove_network() {
    [ -d /run/netns ] || return 0
    [ ! -e "/run/netns/fleet-testbed-$slot-$1" ] || ip netns del "fleet-testbed-$slot-$1"
    # The other end goes with the namespace, in its own time; a new host may need the name now.
    ip link del "ftb$slot-$1" 2>/dev/null || true
}

# Tried once a testbed: a container that prints a word. Leaves the reason in nspawn-refused.
host_nspawn_works() {
    [ ! -f "$state/nspawn-works" ] || return 0
    local root=$state/template/try said
    rm -rf "$root"
    mkdir -p "$root/upper" "$root/work" "$root/root"
    if ! command -v systemd-nspawn >/dev/null; then
        echo "systemd-nspawn is not installed (package systemd-container)" >"$state/nspawn-refused"
        return 1
    fi
    if [ -z "$cgroup" ]; then
        echo "there is no cgroup v2 file system here, and none can be mounted" >"$state/nspawn-refused"
        return 1
    fi
    said=$(TESTBED_TRY=1 unshare -m "$here/host/launch" "$root" nspawn "$cgroup/try" try "" 2>&1 </dev/null) || true
    cgroup_remove "$cgroup/try"
    rm -rf "$root"
    case $said in
    *nspawn-works*) touch "$state/nspawn-works" ;;
    *)
        [ -n "$said" ] || said="it said nothing"
        tail -n 1 <<<"$said" >"$state/nspawn-refused"
        return 1
        ;;
    esac
}

cgroup_remove() {
    [ -d "$1" ] || return 0
    [ ! -e "$1/cgroup.kill" ] || echo 1 >"$1/cgroup.kill"
    local tries
    for tries in $(seq 1 200); do
        grep -q '^populated 0' "$1/cgroup.events" && break
        sleep 0.02
    done
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
}

host_is_up() {
    local dir pid
    dir=$(host_dir "$1")
    if [ -n "$cgroup" ]; then
        grep -qs '^populated 1' "$cgroup/h$1/cgroup.events"
    else
        pid=$(cat "$dir/pid" 2>/dev/null) && [ -n "$pid" ] && grep -qs "$dir" "/proc/$pid/cmdline"
    fi
}

# Of the caller's descriptors only the first three are passed on to what stays: bats and others
# wait until each holder of theirs has ended.
host_close_descriptors() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || eval "exec $fd>&-" 2>/dev/null || true
    done
}

# Returns at once; host_wait waits until it is up.
host_start() {
    local i=$1 dir group='' space=''
    dir=$(host_dir "$i")
    [ -z "$cgroup" ] || group=$cgroup/h$i
    rm -f "$dir/upper/var/lib/fleet-testbed/ready" "$dir/boot-failed"
    if [ -f "$dir/net" ]; then
        space=$(cat "$dir/net")
        ip -n "$space" link set host0 up
    fi
    (
        host_close_descriptors
        exec setsid unshare -m "$here/host/launch" "$dir" "$(cat "$dir/kind")" "$group" \
            "ftb$slot-$i" "$space" </dev/null >>"$dir/console.log" 2>&1
    ) &
    echo $! >"$dir/pid"
}

host_start_if_down() {
    host_need "$1"
    host_is_up "$1" || host_start "$1"
}

host_wait() {
    local i=$1 dir tries
    dir=$(host_dir "$i")
    for tries in $(seq 1 600); do
        [ ! -e "$dir/upper/var/lib/fleet-testbed/ready" ] || return 0
        if [ "$tries" -gt 20 ] && ! host_is_up "$i"; then
            tail -n 5 "$dir/console.log" >&2
            die "h$i does not start; the last lines of $dir/console.log are above"
        fi
        sleep 0.05
    done
    tail -n 5 "$dir/console.log" >&2
    die "h$i is not up after 30 s; the last lines of $dir/console.log are above"
}

# A power cut: every process gone in one step, no farewell to any of them.
host_kill() {
    local i=$1 dir pid children
    dir=$(host_dir "$i")
    host_need "$i"
    host_is_up "$i" || return 0
    if [ -n "$cgroup" ]; then
        cgroup_remove "$cgroup/h$i"
    else
        pid=$(cat "$dir/pid")
        mapfile -t children < <(pgrep -P "$pid")
        kill -KILL "$pid" "${children[@]}" 2>/dev/null || true
        while [ -e "/proc/$pid" ] && host_is_up "$i"; do sleep 0.02; done
    fi
}

host_freeze() { # number, 1 or 0
    host_need "$1"
    [ -n "$cgroup" ] || die "freeze needs cgroup v2, which this machine refuses"
    echo "$2" >"$cgroup/h$1/cgroup.freeze"
    local tries
    for tries in $(seq 1 100); do
        grep -q "^frozen $2" "$cgroup/h$1/cgroup.events" && return
        sleep 0.02
    done
    die "h$1 does not freeze or thaw within 2 s"
}

host_ssh() {
    local i=$1
    shift
    host_need "$i"
    [ -f "$state/known_hosts" ] || inventory_known_hosts
    # OpenSSH's first choice, sntrup761, takes eight times the processor's time at both ends.
    ssh -F /dev/null -i "$key" -o IdentitiesOnly=yes -o UserKnownHostsFile="$state/known_hosts" \
        -o KexAlgorithms=curve25519-sha256 \
        -o BatchMode=yes -o ConnectTimeout=10 -o LogLevel=ERROR "root@$(host_address "$i")" "$@"
}

host_status() {
    local i=$1 dir state_word=down
    dir=$(host_dir "$i")
    host_need "$i"
    ! host_is_up "$i" || state_word=up
    [ -z "$cgroup" ] || ! grep -qs '^frozen 1' "$cgroup/h$i/cgroup.events" || state_word=frozen
    printf '%-5s %-6s %-7s %-15s %-5s %s\n' "h$i" "$state_word" "$(cat "$dir/kind")" \
        "$(host_address "$i")" "$(host_version "$i")" "$(cat "$dir/flavour")"
}

host_version() {
    curl -s -m 1 --noproxy '*' "http://$(host_address "$1"):8080/version" 2>/dev/null || echo -
}

host_fill() { # number, boot|run|nix
    case $2 in
    boot)
        if [ -f "$(host_dir "$1")/boot.img" ]; then
            host_fill_folder "$1" /boot
        else
            : >"$(host_dir "$1")/boot/.testbed-full"
        fi
        ;;
    run) host_fill_folder "$1" /run ;;
    nix)
        [ -f "$(host_dir "$1")/nix.img" ] ||
            die "fill nix: h$1's /nix is this machine's own disk; make the host with --flavour small-nix"
        # Nix's database needs a little room, or nothing there can even be read; no file has any.
        host_fill_folder "$1" /nix
        host_ssh "$1" "truncate -s -1M /nix/.testbed-fill"
        ;;
    *) die "fill: boot, run or nix" ;;
    esac
}

host_fill_folder() { # number, folder: to the last byte, so two sizes of writes
    host_ssh "$1" "sh -c 'dd if=/dev/zero of=$2/.testbed-fill bs=64k; dd if=/dev/zero of=$2/.testbed-fill2 bs=512; exit 0'" \
        >/dev/null 2>&1
}

host_unfill() {
    rm -f "$(host_dir "$1")/boot/.testbed-full"
    host_ssh "$1" "rm -f /$2/.testbed-fill /$2/.testbed-fill2"
}

# An old unit that a target wants and that fails at each start: every activation ends with exit
# code 4 because of it.
host_fail_unit() {
    [ "$(cat "$(host_dir "$1")/kind")" = nspawn ] || die "fail-unit needs a host with systemd"
    host_ssh "$1" /bin/sh -s <<'SCRIPT'
units=/usr/local/lib/systemd/system
mkdir -p $units/multi-user.target.wants
cat >$units/legacy-backup.service <<UNIT
[Unit]
Description=An old backup job that nobody repairs
[Service]
ExecStart=/bin/sh -c 'echo "backup: no such tape" >&2; exit 1'
UNIT
ln -sf ../legacy-backup.service $units/multi-user.target.wants/
systemctl daemon-reload
systemctl start legacy-backup.service
for tries in 1 2 3 4 5 6 7 8 9 10; do
    systemctl is-failed -q legacy-backup.service && exit 0
    sleep 0.1
done
exit 1
SCRIPT
}

host_logins() {
    grep -c '^Accepted ' "$(host_dir "$1")/upper/var/log/sshd.log" || true
}
