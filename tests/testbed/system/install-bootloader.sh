#!/bin/sh
# The boot loader's installer, after systemd-boot's on NixOS: the menu is made from the profile's
# generations, kernels and initrds are copied to /boot, and the default becomes the generation that
# is TOPLEVEL. A TOPLEVEL without a generation is no entry, so it never becomes the default: the
# profile has to be set first. Each file is written beside its place and renamed; a full /boot
# leaves the old menu.
# Usage: install-bootloader TOPLEVEL   (TESTBED_BOOT and TESTBED_PROFILES: other folders)
PATH=/usr/bin:/bin:/usr/sbin:/sbin
set -eu
top=$(readlink -f "$1")
boot=${TESTBED_BOOT:-/boot}
profiles=${TESTBED_PROFILES:-/nix/var/nix/profiles}

if [ -e "$boot/.testbed-full" ]; then
    echo "cannot write to $boot: No space left on device" >&2
    exit 1
fi

# A test's own step, as in activate.
[ ! -x /run/testbed-hook ] || /run/testbed-hook bootloader "$top"

put() { # name: standard input becomes that file under /boot
    if cat >"$boot/$1.tmp" && mv "$boot/$1.tmp" "$boot/$1"; then
        return 0
    fi
    rm -f "$boot/$1.tmp"
    return 1
}

kept=
put_image() { # file in the store: copied once, under its store name
    name=$(echo "${1#/nix/store/}" | tr / -).efi
    kept="$kept $name"
    [ -e "$boot/EFI/nixos/$name" ] || put "EFI/nixos/$name" <"$1"
}

mkdir -p "$boot/EFI/nixos" "$boot/loader/entries"
default=
for link in $(find "$profiles" -maxdepth 1 -name 'system-*-link' | sed 's/.*system-\([0-9]*\)-link$/\1/' | sort -n); do
    generation=$(readlink "$profiles/system-$link-link")
    [ -e "$generation/init" ] || continue
    put_image "$(readlink -f "$generation/kernel")"
    kernel=$name
    put_image "$(readlink -f "$generation/initrd")"
    entry=nixos-generation-$link.conf
    kept="$kept $entry"
    put "loader/entries/$entry" <<ENTRY
title NixOS
version Generation $link NixOS $(cat "$generation/nixos-version")
linux /EFI/nixos/$kernel
initrd /EFI/nixos/$name
options init=$generation/init
ENTRY
    [ "$generation" != "$top" ] || default=$generation
done
[ -z "$default" ] || echo "$default" | put loader/default

for file in "$boot"/loader/entries/*.conf "$boot"/EFI/nixos/*.efi; do
    case " $kept " in
    *" ${file##*/} "*) ;;
    *) rm -f "$file" ;;
    esac
done
sync -f "$boot" 2>/dev/null || true
[ ! -x /run/testbed-hook ] || /run/testbed-hook bootloader-done "$top"
