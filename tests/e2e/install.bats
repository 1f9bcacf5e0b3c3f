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
