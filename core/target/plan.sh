#!/bin/sh
# What a plan compares: units, kernel and closure of the host's systems. Arguments: CURRENT, BOOTED,
# DESIRED (a path, or "" where the operator reads it in a store of its own), CLOSURES (yes: of
# CURRENT and DESIRED). Writes nothing. The keys are listed at plan_ask in core/plan_ask.h.

# What a changed one of these needs is a reboot.
plan_kernel() { # prefix, system
    for part in kernel initrd kernel-modules; do
        resolve "$2/$part"
        [ -z "$target" ] || say "${1}_link" "$part $target"
    done
    interface=
    [ ! -r "$2/init-interface-version" ] || IFS= read -r interface <"$2/init-interface-version"
    say "${1}_link" "init-interface-version $interface"
}

plan_units() { # prefix, system
    cd "$2/etc/systemd/system" 2>/dev/null || return 0
    say "${1}_units" yes
    sha256sum -- * ./*.d/*.conf 2>/dev/null |
        sed -n "s/^\([0-9a-f]\{64\}\)  /${1}_unit \1 /p" | sed 's| \./| |'
    grep -HE '^(X-[A-Za-z]*|RefuseManualStop)=' -- * 2>/dev/null |
        sed -n "s/^\([^:]*\):/${1}_flag \1 /p"
    for link in *.wants/* *.requires/*; do
        if [ -L "$link" ] || [ -e "$link" ]; then say "${1}_want" "$link"; fi
    done
    cd /
}

plan_closure() { # prefix, path
    [ "$CLOSURES" = yes ] || return 0
    paths=$(nix-store --query --requisites "$2") || return 0
    sizes=$(printf '%s\n' "$paths" | xargs nix-store --query --size) || return 0
    bytes=0
    for size in $sizes; do
        bytes=$((bytes + size))
    done
    printf '%s\n' "$paths" | sed "s/^/${1}_path /"
    say "${1}_bytes" "$bytes"
}

for each in "current $CURRENT" "desired $DESIRED"; do
    system=${each#* }
    [ -n "$system" ] || continue
    plan_kernel "${each%% *}" "$system"
    plan_units "${each%% *}" "$system"
    plan_closure "${each%% *}" "$system"
done
[ -z "$BOOTED" ] || plan_kernel booted "$BOOTED"
if has_systemd; then
    ask_systemd list-units --plain --no-legend --full --state=active,activating,reloading |
        while read -r unit _; do
            say active "$unit"
        done
fi
