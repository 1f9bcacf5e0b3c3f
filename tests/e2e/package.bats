#!/usr/bin/env bats
# package.nix and flake.nix parse, and evaluate with stub inputs: no nixpkgs is to be had here.

setup() {
    repo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
    command -v nix-instantiate >/dev/null || skip "nix-instantiate is not installed"
    # A store of the test's own: evaluating must not depend on the machine's.
    export NIX_STORE_DIR=$BATS_TEST_TMPDIR/store NIX_STATE_DIR=$BATS_TEST_TMPDIR/var
    export NIX_CONFIG='substituters ='
}

# evaluate EXPRESSION: with `stubs`, `package` (package.nix called on them) and `flake` (its
# outputs) in scope; prints JSON. Nix's warnings about the machine go elsewhere.
evaluate() {
    nix-instantiate --eval --strict --json --readonly-mode --expr "
        let
          stubs = import (/. + \"$repo/tests/e2e/package-stubs.nix\") { };
          package = (stubs.pkgs \"x86_64-linux\").callPackage (/. + \"$repo/package.nix\") { };
          flake = (import (/. + \"$repo/flake.nix\")).outputs { self = flake; nixpkgs = stubs.nixpkgs; };
        in $1" 2>"$BATS_TEST_TMPDIR/stderr"
}

@test "package.nix and flake.nix parse" {
    nix-instantiate --parse "$repo/package.nix" >/dev/null
    nix-instantiate --parse "$repo/flake.nix" >/dev/null
}

@test "the package has the version that CMake builds" {
    run evaluate 'package.version'
    [ "$status" = 0 ]
    [ "$output" = "\"$(sed -n 's/^project(fleet VERSION \([^ ]*\) .*/\1/p' "$repo/CMakeLists.txt")\"" ]
}

@test "the package has every library that CMake asks for" {
    declare -A attribute=([libuv]=libuv [libcjson]=cjson [libgit2]=libgit2 [libcurl]=curl
        [libzstd]=zstd [ncursesw]=ncurses)
    inputs=$(evaluate 'map (p: p.name) package.buildInputs')
    modules=$(sed -n 's/^fleet_require([a-z0-9]* \(.*\))$/\1/p' "$repo/cmake/dependencies.cmake")
    [ -n "$modules" ]
    for module in $modules; do
        echo "CMake asks for $module; package.nix has $inputs"
        [ -n "${attribute[$module]}" ]
        [[ $inputs == *"\"${attribute[$module]}\""* ]]
    done
    [[ $inputs == *'"libssh2"'* && $inputs == *'"openssl"'* ]]
}

@test "the package has the programs that the unit tests run, where it runs them" {
    [ "$(evaluate 'package.doCheck')" = false ]
    [ "$(evaluate 'flake.checks.x86_64-linux.fleet.doCheck')" = true ]
    tools=$(evaluate 'map (p: p.name) package.nativeCheckInputs')
    for tool in git nix openssh openssl python3-with-jsonschema zstd; do
        echo "$tool is not in $tools"
        [[ $tools == *"\"$tool\""* ]]
    done
}

@test "the package refuses a libssh2 that cannot talk to NixOS" {
    run evaluate "((import (/. + \"$repo/tests/e2e/package-stubs.nix\") { libssh2Version = \"1.10.0\"; })
        .pkgs \"x86_64-linux\").callPackage (/. + \"$repo/package.nix\") { }"
    [ "$status" != 0 ]
    [[ $(<"$BATS_TEST_TMPDIR/stderr") == *"fleet needs libssh2 1.11.1 or newer, this nixpkgs has 1.10.0"* ]]
}

@test "the package's source leaves the build folder out and keeps the rest" {
    run evaluate '[
        (package.src.filter "/x/build" "directory")
        (package.src.filter "/x/scripts/build" "regular")
        (package.src.filter "/x/core" "directory")
    ]'
    [ "$output" = '[false,true,true]' ]
}

@test "the flake has a package, a shell, a check and an overlay" {
    run evaluate 'builtins.mapAttrs (_: s: builtins.attrNames s)
        { inherit (flake.packages) x86_64-linux aarch64-linux; }'
    [ "$output" = '{"aarch64-linux":["default","fleet"],"x86_64-linux":["default","fleet"]}' ]
    run evaluate 'flake.packages.x86_64-linux.default.meta.mainProgram'
    [ "$output" = '"fleet"' ]
    run evaluate '(flake.overlays.default (stubs.pkgs "x86_64-linux") { }).fleet.pname'
    [ "$output" = '"fleet"' ]
    run evaluate '(builtins.head flake.devShells.aarch64-linux.default.inputsFrom).pname'
    [ "$output" = '"fleet"' ]
    run evaluate 'map (p: p.name) flake.devShells.x86_64-linux.default.packages'
    [[ $output == *'"bats"'* ]]
    run evaluate 'flake.checks.x86_64-linux.fleet.postInstall'
    [[ $output == *'--suffix PATH : /stub/openssh/bin'* ]]
}
