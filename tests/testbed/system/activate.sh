#!/bin/sh
# Makes this toplevel the running system: /etc points into it, then /run/current-system. Nothing is
# started or stopped here, that is the work of switch-to-configuration (and of systemd at boot).
PATH=/usr/bin:/bin:/usr/sbin:/sbin
variant=@variant@

if [ "$variant" = hangs ] && [ -z "${IN_STAGE_2:-}" ]; then
    echo "waiting for the greeting to settle..." >&2
    trap '' TERM INT HUP
    while :; do sleep 1; done
fi

mkdir -p /run/nixos /run/sshd /nix/var/nix/gcroots /nix/var/nix/daemon-socket
echo "setting up /etc..." >&2
link() { # target, name: replaces the link in one step
    ln -sfn "$1" "$2.testbed-new" && mv -T "$2.testbed-new" "$2"
}
status=0
link @out@/etc /etc/static || status=1
link /etc/static/systemd/system /etc/systemd/system || status=1
[ -L /nix/var/nix/gcroots/current-system ] ||
    ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
[ -L /nix/var/nix/gcroots/booted-system ] ||
    ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system

if [ "$variant" = fail-activate ] && [ -z "${IN_STAGE_2:-}" ]; then
    echo "Activation script snippet 'greetings' failed (1)" >&2
    status=1
fi

# A test's own snippet: it may wait, talk or fail. Not at boot, when /run is new.
[ ! -x /run/testbed-hook ] || /run/testbed-hook activate @out@ || status=1

# As on NixOS the link is set last, and also after a snippet that failed.
link @out@ /run/current-system || status=1
exit $status
