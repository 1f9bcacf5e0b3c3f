#!/bin/sh
# Removes generations and collects garbage. Arguments: PROFILE, REMOVE (numbers), DRY (yes: only
# says what it would free), SECONDS_MAX. The keys are listed at gc_collect in core/gc.h.

# What is dead already, and what only the generations to be removed keep alive, one a line.
dead_paths() {
    nix-store --gc --print-dead 2>/dev/null | sed -n '\|^/nix/store/|p'
    [ -n "$links" ] || return 0
    # shellcheck disable=SC2086
    closures=$(readlink $links | xargs nix-store --query --requisites | sort -u) || return 0
    roots=$(nix-store --gc --print-roots 2>/dev/null) || return 0
    live=$(printf '%s\n' "$roots" | other_roots | sort -u |
        xargs nix-store --query --requisites | sort -u) || return 0
    # Twice among the live ones: never unique.
    printf '%s\n%s\n%s\n' "$live" "$live" "$closures" | sort | uniq -u
}

# The paths of all roots but the links that are to go.
other_roots() {
    while read -r root; do
        case " $links " in
        *" ${root%% -> *} "*) ;;
        *) printf '%s\n' "$root" | sed -n 's|^.* -> \(/nix/store/[^/]*\).*|\1|p' ;;
        esac
    done
}

dry_run() {
    dead=$(dead_paths | sort -u)
    [ -n "$dead" ] || {
        say paths 0
        say bytes 0
        return
    }
    say paths "$(printf '%s\n' "$dead" | wc -l)"
    # What a broken download or build has left is no valid path, and has no size.
    invalid=$(printf '%s\n' "$dead" | xargs nix-store --check-validity --print-invalid)
    bytes=0
    for size in $(printf '%s\n%s\n%s\n' "$dead" "$invalid" "$invalid" | sort | uniq -u |
        xargs nix-store --query --size); do
        bytes=$((bytes + size))
    done
    say bytes "$bytes"
}

# The menu must not offer what is gone. As NixOS does, from the profile's links.
write_menu() {
    resolve "$PROFILE"
    [ -x "$target/bin/switch-to-configuration" ] || return 0
    NIXOS_INSTALL_BOOTLOADER=0 timeout -k 5 300 "$target/bin/switch-to-configuration" boot \
        >/dev/null 2>&1 </dev/null || say warning "the boot menu could not be written again ($?)"
}

links=
for number in $REMOVE; do
    links="$links${links:+ }$PROFILE-$number-link"
done
if [ "$DRY" = yes ]; then
    dry_run
    exit 0
fi
if [ -n "$REMOVE" ]; then
    # shellcheck disable=SC2086
    nix-env -p "$PROFILE" --delete-generations $REMOVE >/dev/null ||
        fail "nix-env could not remove the generations $REMOVE"
    write_menu
fi
words=$(timeout -k 5 "$SECONDS_MAX" nix-store --gc 2>&1) || {
    printf '%s\n' "$words" | tail -n 5 >&2
    fail "nix-store --gc failed or took longer than $SECONDS_MAX s"
}
say words "$(printf '%s\n' "$words" | tail -n 1)"
