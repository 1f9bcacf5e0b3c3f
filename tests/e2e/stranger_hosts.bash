# shellcheck shell=bash disable=SC2016,SC2034
# Hosts that owe nothing to the testbed: as somebody would make them who has read the contract only.
#
# A host is an sshd in mount, PID and host name spaces of its own, with its own /nix, /run, /var/lib,
# /etc, /root and /home; without systemd. Systems are folders written by hand and put into a store by
# `nix-store --add`: kernel, initrd, init, and six lines of switch-to-configuration. The operator has a
# /nix of its own, too. Needs root. Nothing is left but $S, which the caller removes.

FLEET=${FLEET:-$BATS_TEST_DIRNAME/../../build/fleet}
nixos_algorithms=(
    'KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org'
    'Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr'
    'MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com'
)

# begin_stranger: sets S (a folder) and NET (the first three numbers of the hosts' addresses).
begin_stranger() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    unshare -mupf --mount-proc true 2>/dev/null || skip "name spaces are refused here"
    S=$(mktemp -d /var/tmp/fleet-stranger.XXXXXX)
    NET=127.$((150 + RANDOM % 100)).$((RANDOM % 250))
    export S NET
    mkdir -p "$S/operator/nix/store" "$S/operator/home" /nix # where a store is mounted
    ssh-keygen -q -t ed25519 -N '' -f "$S/id" -C ''
    touch "$S/known_hosts"
}

end_stranger() {
    local file
    [ -n "${S:-}" ] || return 0
    for file in "$S"/*/pid; do
        [ ! -e "$file" ] || kill -9 "$(<"$file")" 2>/dev/null || true
    done
    chmod -R u+w "$S"
    rm -rf "$S"
}

# operator COMMAND...: with the operator's store and home, and nobody's ~/.ssh/config or agent.
operator() {
    unshare -m sh -c 'mount --make-rprivate / && mount --bind "$0/operator/nix" /nix && exec "$@"' \
        "$S" env -u SSH_AUTH_SOCK -u FLEET_INVENTORY HOME="$S/operator/home" "$@"
}

# fleet WORD...: standard output in $S/out, errors in $S/err, the exit code in `status`.
fleet() {
    status=0
    operator "$FLEET" -i "$S/fleet.json" --state-dir "$S/state" "$@" \
        >"$S/out" 2>"$S/err" </dev/null 3>&- || status=$?
    tail -n 20 "$S/out" "$S/err" # shown where a test fails
}

# make_system VERSION [EXIT_CODE [SECONDS]]: prints the store path of a system whose activation takes
# so long and ends so.
make_system() {
    local folder=$S/systems/nixos-system-by-hand-$1-${2:-0}
    mkdir -p "$folder/bin" "$folder/sw/bin"
    echo 6.1 >"$S/systems/linux"
    for file in kernel initrd init; do
        ln -sfn "$S/systems/linux" "$folder/$file"
    done
    cat >"$folder/bin/switch-to-configuration" <<'SCRIPT'
#!/bin/sh
self=${0%/bin/switch-to-configuration}
case $1 in
test | switch) sleep SECONDS; [ EXIT = 100 ] || ln -sfn "$self" /run/current-system; exit EXIT ;;
esac
SCRIPT
    sed -i "s/EXIT/${2:-0}/; s/exit EXIT/exit ${2:-0}/; s/SECONDS/${3:-0}/" "$folder/bin/switch-to-configuration"
    chmod +x "$folder/bin/switch-to-configuration"
    operator nix-store --add "$folder"
}

# start_host NAME NUMBER FIRST_SYSTEM [SSHD_LINE...]: at $NET.NUMBER port 22. LOGIN is root's shell, RC
# what its start-up files do; deploy may sudo, pw with the password "two words".
start_host() {
    local name=$1 address=$NET.$2 first=$3 folder=$S/$1 line
    shift 3
    mkdir -p "$folder"/{nix/store,etc,work,lib,root/.ssh,home/deploy/.ssh,home/pw/.ssh}
    for line in root home/deploy home/pw; do
        cp "$S/id.pub" "$folder/$line/.ssh/authorized_keys"
        for file in .bashrc .profile .zshenv; do
            printf '%s\n' "${RC:-:}" >"$folder/$line/$file"
        done
    done
    mkdir -p "$folder/root/.config/fish"
    printf '%s\n' "${RC:-true}" >"$folder/root/.config/fish/config.fish"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/key" -C ''
    { grep -v '^root:' /etc/passwd
        echo "root:x:0:0:root:/root:${LOGIN:-/bin/bash}"
        echo "deploy:x:2001:2001::/home/deploy:${LOGIN:-/bin/bash}"
        echo "pw:x:2002:2002::/home/pw:/bin/bash"; } >"$folder/etc/passwd"
    { cat /etc/group; echo deploy:x:2001:; echo pw:x:2002:; } >"$folder/etc/group"
    { grep -v '^root:' /etc/shadow; echo 'root:*:19000::::::'; echo 'deploy:*:19000::::::'
        echo "pw:$(openssl passwd -6 'two words'):19000::::::"; } >"$folder/etc/shadow"
    printf '%s\n' 'root ALL=(ALL) ALL' 'deploy ALL=(ALL) NOPASSWD: ALL' 'pw ALL=(ALL) ALL' >"$folder/etc/sudoers"
    chmod 600 "$folder/etc/shadow"
    chmod 440 "$folder/etc/sudoers"
    chown -R 2001:2001 "$folder/home/deploy"
    chown -R 2002:2002 "$folder/home/pw"
    { printf '%s\n' "ListenAddress $address" "HostKey $folder/key" 'PidFile none' 'StrictModes no' \
        'UsePAM no' 'PermitRootLogin prohibit-password' "$@"; } >"$folder/sshd_config"
    operator nix-store --export "$first" >"$folder/first"
    cat >"$folder/boot" <<BOOT
mount --make-rprivate /
mount -t overlay -o lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/work overlay /etc
mount --bind $folder/nix /nix
mount --bind $folder/lib /var/lib
mount --bind $folder/root /root
mount --bind $folder/home /home
mount -t tmpfs tmpfs /run
mkdir /run/sshd
hostname $name
nix-store --import <$folder/first
nix-env -p /nix/var/nix/profiles/system --set $first
ln -s $first /run/current-system
ln -s $first /run/booted-system
exec /usr/sbin/sshd -D -e -f $folder/sshd_config
BOOT
    unshare -mupf --mount-proc --kill-child sh -e "$folder/boot" >"$folder/log" 2>&1 </dev/null 3>&- &
    echo $! >"$folder/pid"
    echo "$address $(<"$folder/key.pub")" >>"$S/known_hosts"
}

wait_for_hosts() { # NAME...
    local name
    for name in "$@"; do
        for ((i = 0; i < 600; i++)); do
            ! grep -q 'Server listening' "$S/$name/log" || continue 2
            sleep 0.1
        done
        cat "$S/$name/log"
        return 1
    done
}

# inside NAME COMMAND...: as root in the host's name spaces, not by ssh.
inside() {
    local child
    read -r child _ <"/proc/$(<"$S/$1/pid")/task/$(<"$S/$1/pid")/children" || true # no line feed
    nsenter -t "$child" -m -p -u "${@:2}" </dev/null
}

# runs NAME SYSTEM: running, and what the next boot and every later update take for granted.
runs() {
    echo "$1 runs $(inside "$1" readlink -f /run/current-system), its profile is" \
        "$(inside "$1" readlink -f /nix/var/nix/profiles/system); expected $2"
    [ "$(inside "$1" readlink -f /run/current-system)" = "$2" ]
    [ "$(inside "$1" readlink -f /nix/var/nix/profiles/system)" = "$2" ]
}

# inventory HOSTS: the members of "hosts", and what all of them share.
inventory() {
    cat >"$S/fleet.json" <<JSON
// By hand.
{ "version": 1, "name": "by hand",
  "defaults": { "user": "root", "identity_file": "$S/id", "known_hosts": "$S/known_hosts",
    "policy": { "min_healthy_time": "200ms", "startup_grace": "0s", "waves": ["100%"], "max_parallel": 9 }, },
  "hosts": { $1 } }
JSON
}

# valid_events FILE: each line is what fleet.events.schema.json says.
valid_events() {
    local python
    for python in /usr/bin/python3 python3; do
        ! "$python" -c 'import jsonschema' 2>/dev/null || break
    done
    "$python" - "$BATS_TEST_DIRNAME/../../fleet.events.schema.json" "$1" <<'PYTHON'
import json, sys, jsonschema
validator = jsonschema.validators.validator_for({})(json.load(open(sys.argv[1])))
lines = open(sys.argv[2]).read().splitlines()
assert lines, "no event at all"
for line in lines:
    for error in validator.iter_errors(json.loads(line)):
        sys.exit(f"{error.message}: {line}")
PYTHON
}
