#!/usr/bin/env bats
# `cmake --install` of the build that is under test: everything that a package ships.

setup() {
    FLEET=${FLEET:-$BATS_TEST_DIRNAME/../../build/fleet}
    build=$(dirname "$FLEET")
    [ -e "$build/cmake_install.cmake" ] || skip "$build is no build folder of CMake"
    to=$BATS_TEST_TMPDIR/to
    cmake --install "$build" --prefix "$to" >"$BATS_TEST_TMPDIR/log" 2>&1 || {
        cat "$BATS_TEST_TMPDIR/log"
        return 1
    }
}

@test "program, schemas, example, manual page and completions are installed" {
    run "$to/bin/fleet" --version
    [ "$status" = 0 ]
    for file in share/fleet/fleet.schema.json share/fleet/fleet.events.schema.json \
        share/doc/fleet/fleet.example.json share/man/man1/fleet.1 \
        share/bash-completion/completions/fleet share/zsh/site-functions/_fleet \
        share/fish/vendor_completions.d/fleet.fish; do
        [ -s "$to/$file" ] || { echo "$file is missing" >&2; return 1; }
    done
    python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$to/share/fleet/fleet.schema.json"
    bash -n "$to/share/bash-completion/completions/fleet"
    # Static libraries and headers are nobody's business.
    [ "$(cd "$to" && ls)" = "bin
share" ]
}

@test "the installed example is valid" {
    run "$to/bin/fleet" -i "$to/share/doc/fleet/fleet.example.json" check
    echo "$output"
    [ "$status" = 0 ]
}

@test "under DESTDIR the same, and nothing beside it" {
    DESTDIR=$BATS_TEST_TMPDIR/dest cmake --install "$build" --prefix /opt/fleet-of-a-test >/dev/null
    [ ! -e /opt/fleet-of-a-test ]
    diff <(cd "$to" && find . -type f | sort) \
        <(cd "$BATS_TEST_TMPDIR/dest/opt/fleet-of-a-test" && find . -type f | sort)
}

@test "the completions and the manual are what their readers take" {
    bash -n "$to/share/bash-completion/completions/fleet"
    if command -v fish >/dev/null; then
        fish --no-execute "$to/share/fish/vendor_completions.d/fleet.fish"
    fi
    if command -v zsh >/dev/null; then
        zsh -n "$to/share/zsh/site-functions/_fleet"
    fi
    # The first request of a manual page, and the sections that man and apropos look for.
    grep -q '^\.TH FLEET 1 ' "$to/share/man/man1/fleet.1"
    grep -q '^\.SH NAME' "$to/share/man/man1/fleet.1"
    if command -v groff >/dev/null; then
        [ -z "$(groff -man -Tutf8 -ww "$to/share/man/man1/fleet.1" 2>&1 >/dev/null)" ]
    fi
}
