# To be sourced: what needs root, done by root or by an ordinary user through sudo.
#
# A script asks need_root once, before it begins: the password is then asked for in sight, and not
# in the middle of something whose output goes into a log.

# need_root NAME WHAT: returns where as_root will work. Otherwise says why not, and fails.
need_root() {
    [ "$(id -u)" != 0 ] || return 0
    if ! command -v sudo >/dev/null; then
        echo "$1: $2 needs root, and there is no sudo on this machine: run it as root" >&2
        return 1
    fi
    sudo -n true 2>/dev/null && return 0
    if [ -n "${CI:-}" ] || ! { : </dev/tty; } 2>/dev/null; then
        echo "$1: $2 needs root, and sudo would ask $(id -un) for a password that nobody is here to type: run it as root, in a terminal, or allow $(id -un) sudo without one" >&2
        return 1
    fi
    echo "$1: $2 needs root" >&2
    sudo -v || {
        echo "$1: sudo does not let $(id -un) do that: run it as root" >&2
        return 1
    }
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need_own NAME FOLDER: fails, and says what to do, where somebody else's files are in the way: what
# root builds stays root's.
need_own() {
    local other
    [ -e "$2" ] || return 0
    other=$(find "$2" -maxdepth 2 ! -writable ! -type l -print -quit)
    [ -n "$other" ] || return 0
    echo "$1: $other belongs to $(stat -c %U "$other"), and $(id -un) cannot write there. If an earlier run as root has left it: sudo chown -R $(id -un) '$2'" >&2
    return 1
}
