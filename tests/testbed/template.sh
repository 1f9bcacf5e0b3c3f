# shellcheck shell=bash
# What all hosts start from: the upper layer of their root file system, a Nix store with the system
# "v0" as generation 1, and a /boot whose menu names it. Made once a testbed, copied for each host.
#
# The lower layer is this machine's root. What doesn't belong on a host is hidden by opaque folders
# and whiteouts, overlayfs' own marks, written here without mounting anything.

template_make() {
    [ ! -f "$state/template/complete" ] || return 0
    rm -rf "$state/template"
    mkdir -p "$state/template/upper"
    local upper=$state/template/upper
    template_hide "$upper"
    template_etc "$upper"
    template_users "$upper"
    template_units "$upper"
    template_sshd "$upper"
    template_store "$state/template/nix"
    template_boot
    touch "$state/template/complete"
}

template_hide() { # upper
    local dir
    for dir in boot home mnt root srv tmp work var/tmp var/log var/lib/systemd var/lib/fleet \
        var/lib/fleet-testbed var/spool etc/ssh etc/nix etc/sudoers.d etc/fleet-testbed \
        etc/profile.d etc/tmpfiles.d etc/udev; do
        mkdir -p "$1/$dir"
        setfattr -n trusted.overlay.opaque -v y "$1/$dir"
    done
    chmod 1777 "$1/tmp" "$1/var/tmp"
    chmod 700 "$1/root"
    mkdir -p "$1/usr/lib/fleet-testbed" "$1/nix" "$1/proc" "$1/sys" "$1/dev" "$1/run"
    # The machine's own choice of units is not the hosts': /etc/systemd/system becomes a link into
    # the running system. Start-up scripts would be turned into units by systemd.
    mkdir -p "$1/etc/systemd"
    for dir in etc/systemd/system etc/rc0.d etc/rc1.d etc/rc2.d etc/rc3.d etc/rc4.d etc/rc5.d \
        etc/rc6.d etc/rcS.d etc/environment; do
        mknod "$1/$dir" c 0 0
    done
    install -m 755 "$here/host/boot" "$here/host/network" "$here/host/services" "$1/usr/lib/fleet-testbed"
}

template_etc() { # upper
    : >"$1/etc/NIXOS"
    : >"$1/etc/fstab"
    cat >"$1/etc/nix/nix.conf" <<'CONF'
sandbox = false
substituters =
build-users-group =
experimental-features = nix-command flakes
CONF
    printf '127.0.0.1 localhost\n::1 localhost\n' >"$1/etc/hosts"
    mkdir -p "$1/etc/pam.d"
    local service
    for service in sshd sudo; do
        cat >"$1/etc/pam.d/$service" <<'PAM'
auth required pam_unix.so
account required pam_unix.so
password required pam_unix.so
session required pam_unix.so
PAM
    done
}

# root and `ops` log in by key; `ops` may sudo without a password, `opsp` with one, which is in the
# file opsp-password.
template_users() { # upper
    local password user id=2001
    password=$(head -c 12 /dev/urandom | base64 | tr -d '/+=')
    (umask 077 && echo "$password" >"$state/opsp-password")
    cp -p /etc/passwd /etc/shadow /etc/group "$1/etc/"
    sed -i -E '/^(ops|opsp):/d' "$1/etc/passwd" "$1/etc/shadow" "$1/etc/group"
    sed -i -E 's|^(root:.*):[^:]*$|\1:/bin/bash|' "$1/etc/passwd"
    for user in ops opsp; do
        echo "$user:x:$id:$id::/home/$user:/bin/bash" >>"$1/etc/passwd"
        echo "$user:x:$id:" >>"$1/etc/group"
        mkdir -p "$1/home/$user/.ssh"
        cp "$state/key.pub" "$1/home/$user/.ssh/authorized_keys"
        chown -R "$id:$id" "$1/home/$user"
        chmod 700 "$1/home/$user" "$1/home/$user/.ssh"
        id=$((id + 1))
    done
    echo 'ops:*:19000:0:99999:7:::' >>"$1/etc/shadow"
    echo "opsp:$(echo "$password" | openssl passwd -6 -stdin):19000:0:99999:7:::" >>"$1/etc/shadow"
    mkdir -p "$1/root/.ssh"
    cp "$state/key.pub" "$1/root/.ssh/authorized_keys"
    chmod 700 "$1/root/.ssh"
    cat >"$1/etc/sudoers" <<'SUDO'
Defaults env_reset
Defaults secure_path="/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
ops ALL=(ALL:ALL) NOPASSWD: ALL
opsp ALL=(ALL:ALL) ALL
SUDO
    chmod 440 "$1/etc/sudoers"
}

# systemd with what a container needs, and NixOS's bare PATH for units, so that a script that
# counts on a longer one shows.
template_units() { # upper
    local units=$1/usr/local/lib/systemd/system unit generator
    mkdir -p "$units" "$1/etc/systemd/system.conf.d" "$1/etc/systemd/journald.conf.d" \
        "$1/etc/systemd/system-generators"
    printf '[Manager]\nDefaultEnvironment=PATH=/lib/systemd\nShowStatus=no\n' \
        >"$1/etc/systemd/system.conf.d/testbed.conf"
    printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\nReadKMsg=no\nAudit=no\nForwardToSyslog=no\n' \
        >"$1/etc/systemd/journald.conf.d/testbed.conf"
    for generator in /lib/systemd/system-generators/*; do
        ln -sf /dev/null "$1/etc/systemd/system-generators/${generator##*/}"
    done
    # What /usr/lib pulls into each boot and neither a container nor the tests need.
    for unit in $(template_foreign_wants); do
        mkdir -p "$1/${unit%/*}"
        mknod "$1/$unit" c 0 0
    done
    cat >"$units/testbed.target" <<'UNIT'
[Unit]
Description=Testbed host
Requires=multi-user.target
After=multi-user.target
Wants=testbed-ready.service
AllowIsolate=yes
UNIT
    cat >"$units/testbed-ready.service" <<'UNIT'
[Unit]
Description=Tell the testbed that this host is up
After=multi-user.target
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/touch /var/lib/fleet-testbed/ready
UNIT
    ln -sf testbed.target "$units/default.target"
}

# systemd-logind is among them and starts on demand, through D-Bus: a reboot asks for it.
template_foreign_wants() {
    local kept=' systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket dbus.socket ' link
    for link in /usr/lib/systemd/system/*.target.wants/*; do
        case "$kept" in *" ${link##*/} "*) ;; *) echo "${link#/}" ;; esac
    done
}

# sshd at NixOS's defaults: its algorithms, never Debian's wider ones.
template_sshd() { # upper
    cat >"$1/etc/ssh/sshd_config" <<'CONF'
Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr
MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com
KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org
HostKey /etc/ssh/ssh_host_ed25519_key
UsePAM yes
PermitRootLogin prohibit-password
PasswordAuthentication yes
KbdInteractiveAuthentication yes
AuthorizedKeysFile %h/.ssh/authorized_keys /etc/ssh/authorized_keys.d/%u
X11Forwarding no
PrintMotd no
UseDNS no
StrictModes yes
LogLevel INFO
Subsystem sftp internal-sftp
CONF
}

template_store() { # folder that becomes /nix
    local seed
    seed=$(systems_build good v0)
    local -x NIX_CONFIG
    NIX_CONFIG=$(systems_nix_config)
    rm -rf "$1"
    mkdir -p "$1"
    nix-store -qR "$seed" | xargs nix-store --export |
        nix-store --store "local?root=$1.root" --import >/dev/null
    rmdir "$1"
    mv "$1.root/nix" "$1"
    rm -rf "$1.root"
    mkdir -p "$1/var/nix/profiles" "$1/var/nix/gcroots"
    ln -s "$seed" "$1/var/nix/profiles/system-1-link"
    ln -s system-1-link "$1/var/nix/profiles/system"
    ln -sfn /nix/var/nix/profiles "$1/var/nix/gcroots/profiles"
    echo "$seed" >"$state/template/seed"
}

# /boot: a file system of 4 MB in a file, which can be full. Where loop devices are refused it is a
# folder, and `fill` leaves a mark there that the boot loader's installer obeys.
template_boot() {
    local folder=$state/template/boot seed
    seed=$(cat "$state/template/seed")
    mkdir -p "$folder"
    TESTBED_BOOT=$folder TESTBED_PROFILES=$state/template/nix/var/nix/profiles \
        "$seed/install-bootloader" "$seed"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -b 1024 -d "$folder" "$state/template/boot.img" 4M >/dev/null
    mkdir -p "$state/template/mnt"
    if unshare -m mount -o loop "$state/template/boot.img" "$state/template/mnt" 2>/dev/null; then
        rm -rf "$folder"
    else
        note "loop devices are refused here: /boot is a folder on each host, 'fill' only simulates"
        rm -f "$state/template/boot.img"
    fi
}
