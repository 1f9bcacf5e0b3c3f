#!/bin/sh
# make_store.sh ROOT SMALL BIG_MB: a scratch Nix store under ROOT (for --store local?root=ROOT) whose
# path .../0...0-top refers to SMALL little paths, each of which refers to up to four before it, and
# to one folder with everything that a NAR can hold and a file of BIG_MB megabytes.
# Paths are written by hand and registered by Nix itself, which hashes them; nothing is built.
set -eu
root=$1 small=$2 big_mb=$3
mkdir -p "$root/nix/store" "$root/nix/var/nix" /nix
export root small big_mb
exec unshare -m sh -eu <<'INNER'
mount --make-rprivate /
mount --bind "$root/nix" /nix
store=/nix/store
path_of() { printf '%s/%032d-%s' "$store" "$1" "$2"; }
register() { printf '%s\n\n%d\n' "$1" "$(($# - 1))"; shift; [ $# -eq 0 ] || printf '%s\n' "$@"; }

mixed=$(path_of 1 mixed-1.0)
mkdir -p "$mixed/bin" "$mixed/empty" "$mixed/share/deep/er"
printf '#!/bin/sh\necho hello\n' >"$mixed/bin/hello"
chmod 755 "$mixed/bin/hello"
ln -s hello "$mixed/bin/hi"
ln -s /nowhere/at-all "$mixed/share/dangling"
: >"$mixed/share/nothing"
printf 12345678 >"$mixed/share/eight"
printf 'name with spaces' >"$mixed/share/deep/er/a b"
head -c "${big_mb}000000" /dev/urandom >"$mixed/share/big"
{
    register "$mixed" "$mixed"
    i=2
    all=$mixed
    while [ $i -lt $((small + 2)) ]; do
        path=$(path_of $i "small-$i")
        refs=
        for back in 1 2 7 31; do
            [ $((i - back)) -lt 2 ] || refs="$refs $(path_of $((i - back)) "small-$((i - back))")"
        done
        echo "number $i refers to$refs" >"$path"
        # shellcheck disable=SC2086
        register "$path" $refs
        all="$all $path"
        i=$((i + 1))
    done
    top=$(path_of 0 top)
    mkdir "$top"
    echo "$all" >"$top/all"
    # shellcheck disable=SC2086
    register "$top" $all
} >"$root/registration"
nix-store --register-validity <"$root/registration"
INNER
