# shellcheck shell=bash
# The systems to deploy, built in this machine's own Nix store.

# For Nix on this machine, nothing of it is configured system-wide.
systems_nix_config() {
    printf '%s\n' 'sandbox = false' 'substituters =' 'build-users-group =' \
        'experimental-features = nix-command flakes'
}

# VARIANT VERSION [HOST] [--paths N] [--bytes N] [--content C]: prints the toplevel. Where there is
# a testbed a link in its folder keeps it from garbage collection until the testbed is destroyed.
systems_build() {
    local words=() paths=0 bytes=0 content=random
    while [ $# -gt 0 ]; do
        case $1 in
        --paths) paths=$2; shift 2 ;;
        --bytes) bytes=$2; shift 2 ;;
        --content) content=$2; shift 2 ;;
        *) words+=("$1"); shift ;;
        esac
    done
    [ ${#words[@]} -ge 2 ] || die "build: which variant and which version? For example: testbed build good v1"
    local variant=${words[0]} version=${words[1]} name=${words[2]:-testbed}
    local link=(--no-out-link)
    [ ! -f "$state/slot" ] || link=(--out-link "$state/gcroots/$variant-$version-$name-$paths-$bytes-$content")
    NIX_CONFIG=$(systems_nix_config) nix-build "$here/system/system.nix" --quiet \
        --argstr name "$name" --argstr variant "$variant" --argstr version "$version" \
        --argstr paths "$paths" --argstr bytes "$bytes" --argstr content "$content" \
        "${link[@]}"
}
