#!/usr/bin/env bats
# What a run leaves behind: the evaluation that `status` remembers, and the reports for a CI system.
# No host is needed: two addresses where nobody listens, and `fleet build`.
# shellcheck disable=SC2154

setup() {
    command -v nix-instantiate >/dev/null || skip "there is no Nix here"
    FLEET=${FLEET:-$BATS_TEST_DIRNAME/../../build/fleet}
    T=$BATS_TEST_TMPDIR tree=$BATS_TEST_TMPDIR/tree
    export HOME=$T GIT_CONFIG_NOSYSTEM=1 NIX_CONFIG=$'sandbox = false\nsubstituters =\nbuild-users-group ='
    unset CI GITHUB_ACTIONS GITHUB_STEP_SUMMARY
    mkdir "$tree"
    cd "$tree" || return 1
    cat >default.nix <<'NIX'
let
  make = name: builtins.derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "echo ${name}-${builtins.readFile ./version} > $out" ];
  };
in { a = make "fleet-test-a"; b = make "fleet-test-b"; gone = throw "no such option"; }
NIX
    echo 1 >version
    inventory b
    git init -q .
    commit
}

inventory() { # ATTR of the second host
    cat >fleet.json <<JSON
{ "version": 1, "name": "told",
  "defaults": { "known_hosts": "/dev/null", "host_key_check": "strict", "connect_timeout": "1s" },
  "hosts": {
    "a": { "address": "127.88.0.1:9", "system": { "file": "default.nix", "attr": "a" } },
    "b": { "address": "127.88.0.2:9", "system": { "file": "default.nix", "attr": "$1" } } } }
JSON
}

commit() { git add -A && git -c user.name=x -c user.email=x@localhost commit -q -m x; }

fleet() {
    status=0
    timeout 60 "$FLEET" --state-dir "$T/state/fleet" "$@" >"$T/out" 2>"$T/err" </dev/null ||
        status=$?
}

desired() { # HOST [OPTION...]: what `status` says that it shall run
    fleet status --json "${@:2}"
    python3 -c 'import json, sys
for line in open(sys.argv[1]):
    host = json.loads(line)
    if host["host"] == sys.argv[2]: print(host["desired"])' "$T/out" "$1"
}

built() { awk -v host="$1" '$1 == host { print $2 }' "$T/out"; }

@test "status knows what was built of this tree, and of no other" {
    [ "$(desired a)" = None ]
    fleet build
    [ "$status" = 0 ]
    a=$(built a) b=$(built b)
    [ "$(desired a)" = "$a" ]
    [ "$(desired b)" = "$b" ]
    # Changed by an edit of a file, an untracked one, one that is deleted.
    echo 2 >version
    [ "$(desired a)" = None ]
    git checkout -q version
    [ "$(desired a)" = "$a" ]
    touch new
    [ "$(desired a)" = None ]
    rm new version
    [ "$(desired a)" = None ]
    git checkout -q version
    [ "$(desired a)" = "$a" ]
    # A dirty tree is remembered by what it holds.
    echo 2 >version
    fleet build
    a2=$(built a)
    [ "$a2" != "$a" ]
    [ "$(desired a)" = "$a2" ]
    echo 3 >version
    [ "$(desired a)" = None ]
    echo 2 >version
    [ "$(desired a)" = "$a2" ]
    # Another commit with the same files is the same tree.
    git checkout -q version
    git -c user.name=x -c user.email=x@localhost commit -q --allow-empty -m again
    [ "$(desired a)" = "$a" ]
}

@test "nothing is remembered of a file outside the tree, nor without a repository" {
    mv default.nix version "$T"
    sed -i "s|\"default.nix\"|\"$T/default.nix\"|" fleet.json
    commit
    fleet build
    [ "$status" = 0 ]
    [ "$(desired a)" = None ]
    rm -rf .git
    cp "$T/default.nix" "$T/version" .
    fleet build
    [ "$status" = 0 ]
    [ "$(desired a)" = None ]
}

@test "status --eval evaluates, builds nothing, and remembers" {
    inventory gone
    echo "$RANDOM$RANDOM" >version
    commit
    a=$(desired a --eval)
    [[ $a == /nix/store/*-fleet-test-a ]]
    [ ! -e "$a" ]
    fleet status --eval
    [ "$status" = 9 ]
    grep -q "b: the evaluation failed: no such option" "$T/err"
    [ "$(desired b --eval)" = None ]
    [ "$(desired a)" = "$a" ]
    fleet status
    [ "$status" = 5 ]
}

@test "a run leaves JUnit, metrics and a step summary" {
    inventory gone
    export GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY=$T/summary
    echo "before" >"$T/summary"
    fleet build --junit "$T/junit.xml" --metrics "$T/fleet.prom"
    [ "$status" = 9 ]
    python3 - "$T/junit.xml" <<'PY'
import sys, xml.etree.ElementTree as tree
suites = tree.parse(sys.argv[1]).getroot()
assert [s.get("tests") for s in suites] == ["2"], suites
cases = {c.get("name"): c for c in suites.iter("testcase")}
assert cases["a"].find("failure") is None
assert "no such option" in tree.tostring(cases["b"].find("failure"), "unicode")
PY
    grep -qx 'fleet_run_exit_code{fleet="told"} 9' "$T/fleet.prom"
    grep -qx 'fleet_hosts{fleet="told",state="failed"} 1' "$T/fleet.prom"
    grep -qx 'fleet_host_state{fleet="told",host="b",state="failed"} 1' "$T/fleet.prom"
    [ "$(head -1 "$T/summary")" = before ]
    grep -q '^| b .*no such option' "$T/summary"
    grep -q '^::error .*no such option' "$T/err"
    [ "$(ls "$T"/*.new 2>/dev/null)" = "" ]
}

@test "a report that can't be written is refused before anything begins" {
    fleet build --metrics /nonexistent/fleet.prom
    [ "$status" = 2 ]
    grep -q -- "--metrics: nothing can be written in /nonexistent" "$T/err"
    [ ! -e "$T/state/fleet/runs" ]
    fleet plan --out /nonexistent/plan
    [ "$status" = 2 ]
    grep -q -- "--out: nothing can be written in /nonexistent" "$T/err"
    fleet plan --out "$T"
    [ "$status" = 2 ]
    grep -q -- "--out: .* is a folder; name a file in it" "$T/err"
    [ ! -e "$T/state/fleet/plan" ]
}
