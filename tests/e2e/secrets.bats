#!/usr/bin/env bats
# Secrets on real hosts: by `secrets push` and `secrets check`, and in the middle of a rollout. h1 as
# root, h2 as a user with sudo.

load fleet_driver

setup_file() {
    begin_hosts 2 --flavour ops 2
    head -c 300 /dev/urandom >"$T/binary"
    printf 'hunter2-first' >"$T/token"
}
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() { tell; }

secrets() {
    inventory "h1=$v0" "h2=$v0" 'defaults.secrets=[
        {"name": "token", "file": "'"$T"'/token", "path": "/run/fleet/secrets/token",
         "owner": "nobody", "group": "nogroup", "mode": "0440", "restart": ["worker.service"]},
        {"name": "binary", "command": ["cat", "'"$T"'/binary"]}]'
}

states() { jq -r '"\(.host) \(.secret) \(.state)"' "$events" | sort | xargs; }

@test "check tells what is missing and changes nothing" {
    secrets
    fleet secrets check --json
    assert_exit 3
    [ "$(states)" = "h1 binary missing h1 token missing h2 binary missing h2 token missing" ]
    on h1 'test ! -e /run/fleet'
}

@test "push writes with owner and mode, restarts, and leaves no trace of the content" {
    secrets
    pid=$(on h1 systemctl show -p MainPID --value worker)
    fleet secrets push --json -vv
    assert_exit 0
    [ "$(states)" = "h1 binary written h1 token written h2 binary written h2 token written" ]
    for i in 1 2; do
        [ "$("$testbed" ssh $i 'stat -c "%U %G %a" /run/fleet/secrets/token')" = "nobody nogroup 440" ]
        [ "$("$testbed" ssh $i cat /run/fleet/secrets/token)" = hunter2-first ]
        [ "$("$testbed" ssh $i 'stat -c "%U %G %a" /run/fleet/secrets/binary')" = "root root 400" ]
        "$testbed" ssh $i cat /run/fleet/secrets/binary | cmp - "$T/binary"
        [ -z "$("$testbed" ssh $i 'ls -A /run/fleet/secrets | grep fleet-secret')" ]
        "$testbed" ssh $i 'test ! -e /run/fleet/lock'
    done
    [ "$(on h1 systemctl show -p MainPID --value worker)" != "$pid" ]
    encoded=$(base64 -w0 <"$T/token")
    run ! grep -rqs -e hunter2 -e "$encoded" "$T/state" "$events" "$text"
    [ "$(on h1 journalctl --no-pager | grep -ac -e hunter2 -e "$encoded")" = 0 ]
}

@test "a second push writes nothing and restarts nothing; what changed is found" {
    secrets
    pid=$(on h1 systemctl show -p MainPID --value worker)
    fleet secrets push --json
    assert_exit 0
    [ "$(states)" = "h1 binary current h1 token current h2 binary current h2 token current" ]
    [ "$(on h1 systemctl show -p MainPID --value worker)" = "$pid" ]
    printf 'hunter2-second' >"$T/token"
    on h1 'chmod 444 /run/fleet/secrets/binary'
    fleet secrets check --json
    assert_exit 3
    [ "$(states)" = "h1 binary mode h1 token stale h2 binary current h2 token stale" ]
    # A unit that somebody has stopped reads it when it starts.
    on h1 systemctl stop worker
    fleet secrets push h1
    assert_exit 0
    [ "$(on h1 'systemctl is-active worker; systemctl start worker')" = inactive ]
    [ "$(on h1 cat /run/fleet/secrets/token)" = hunter2-second ]
    [ "$(on h1 'stat -c %a /run/fleet/secrets/binary')" = 400 ]
}

@test "a secret that can't be read touches no host; an owner who isn't there keeps the old one" {
    secrets
    jq '.defaults.secrets[1].command = ["false"]' "$inventory" >"$inventory.2"
    mv "$inventory.2" "$inventory"
    printf 'hunter2-third' >"$T/token"
    fleet secrets push h1
    assert_exit 1
    grep -q '"binary": false failed' "$text"
    [ "$(on h1 cat /run/fleet/secrets/token)" = hunter2-second ]
    secrets
    jq '.defaults.secrets[0].owner = "nosuchuser"' "$inventory" >"$inventory.2"
    mv "$inventory.2" "$inventory"
    fleet secrets push h1
    assert_exit 3
    grep -q 'no owner nosuchuser' "$text"
    [ "$(on h1 cat /run/fleet/secrets/token)" = hunter2-second ]
    [ "$(on h1 'ls -A /run/fleet/secrets' | xargs)" = "binary token" ]
}

# The rollouts' own: `token` comes before the activation, `late` after it, made once for all hosts.
rollout_secrets() { # SYSTEM [WORD...]
    inventory "h1=$1" "h2=$1" 'defaults.secrets=[
        {"name": "token", "file": "'"$T"'/token", "restart": ["worker.service"]},
        {"name": "late", "when": "after", "owner": "nobody", "group": "nogroup", "mode": "0440",
         "command": ["sh", "-c", "echo made >>'"$T"'/made; cat '"$T"'/late"]}]' "${@:2}"
}

grants() { jq -r 'select(.type == "grant" and .act == "secret") | "\(.host) \(.path)"' "$events" | sort | xargs; }

worker() { on "$1" systemctl show -p InvocationID --value worker; }

# Looks for what must not be there: in every process's arguments and environment, here and on the
# hosts, whose processes are this machine's, too. The words stand in a file, so that nobody who
# looks for them is found.
watch_processes() {
    while :; do
        grep -Fqsaf "$T/words" /proc/[0-9]*/cmdline /proc/[0-9]*/environ && touch "$T/found"
        sleep 0.05
    done
}

# meddled TOOL: its new text, on standard input, comes before the host's own until `honest`.
meddled() {
    on h1 "cd /run/current-system/sw/bin/ && { [ ! -L $1 ] || mv $1 /var/tmp/honest-$1; } && cat >$1 && /usr/bin/chmod 755 $1"
}

honest() { # TOOL...
    on h1 "cd /run/current-system/sw/bin/ && for tool in $*; do rm \$tool; [ ! -L /var/tmp/honest-\$tool ] ||
        mv /var/tmp/honest-\$tool \$tool; done"
}

@test "the owner of a secret's folder can't have another file written or given away" {
    on h1 'mkdir -p /srv/theirs && chown nobody: /srv/theirs && echo mine >/etc/victim'
    inventory "h1=$v0" 'defaults.secrets=[{"name": "token", "file": "'"$T"'/token",
        "path": "/srv/theirs/token", "owner": "nobody", "group": "nogroup"}]'
    # What he would have to be quick for, he gets time for here: before each of the tools runs.
    for tool in base64 chown chmod; do
        meddled $tool <<SCRIPT
#!/bin/sh
runuser -u nobody -- /bin/sh -c 'cd /srv/theirs && : >met-$tool && for ours in .fleet-secret.*; do
    mv "\$ours" "\${ours#.}" && ln -s /etc/victim "\$ours"; done' 2>/dev/null
exec /usr/bin/$tool "\$@"
SCRIPT
    done
    fleet secrets push
    honest base64 chown chmod
    on h1 'ls /srv/theirs/met-base64 /srv/theirs/met-chown /srv/theirs/met-chmod'
    [ "$(on h1 'stat -c "%U %a" /etc/victim; cat /etc/victim')" = "root 644
mine" ]
    # Nor is it made in a folder of his that has taken the place of ours.
    on h1 rm -rf /srv/theirs/token
    meddled mktemp <<'SCRIPT'
#!/bin/sh
made=$(/usr/bin/mktemp "$@") && echo "$made"
[ "$1" != -d ] || runuser -u nobody -- /bin/sh -c 'mv "$0" "$0.ours" && mkdir "$0"' "$made"
SCRIPT
    fleet secrets push
    honest mktemp
    assert_exit 3
    grep -q 'somebody meddles with /srv/theirs' "$text"
    on h1 'test ! -e /srv/theirs/token'
    fleet secrets push
    assert_exit 0
    [ "$(on h1 'stat -c "%U %G %a" /srv/theirs/token')" = "nobody nogroup 400" ]
}

@test "update brings secrets before and after the activation, and leaves no trace of them" {
    printf 'swordfish-one' >"$T/token"
    printf 'swordfish-late' >"$T/late"
    { printf 'swordfish\n'; base64 -w0 <"$T/token"; echo; base64 -w0 <"$T/late"; } >"$T/words"
    on h1 'rm -rf /run/fleet/secrets' && on h2 'rm -rf /run/fleet/secrets'
    rollout_secrets "$(system good s1)"
    before=$(worker h1)
    watch_processes 3>&- &
    watcher=$!
    update -vv
    kill "$watcher"
    assert_exit 0
    [ "$(grants)" = "h1 /run/fleet/secrets/late h1 /run/fleet/secrets/token h2 /run/fleet/secrets/late h2 /run/fleet/secrets/token" ]
    for i in h1 h2; do
        assert_serves $i s1
        [ "$(on $i cat /run/fleet/secrets/token)" = swordfish-one ]
        [ "$(on $i 'stat -c "%U %G %a" /run/fleet/secrets/late')" = "nobody nogroup 440" ]
        on $i 'test ! -e /run/fleet/restart && test ! -e /run/fleet/lock'
        # In order: token, the activation, late, the probes.
        order=$(jq -r --arg h $i 'select(.host == $h) |
            if .type == "grant" then .act + " " + (.path | split("/") | last)
            elif .type == "host_state" then .to else empty end' "$events" | sed 's/ [a-z0-9]*-nixos.*//' | xargs)
        [[ $order == *"activate secret token activating confirming secret late probing"* ]]
    done
    [ "$(worker h1)" != "$before" ]
    [ "$(wc -l <"$T/made")" = 1 ]
    [ ! -e "$T/found" ]
    run ! grep -rFqsf "$T/words" "$T/state" "$events" "$text"
    for i in h1 h2; do
        found=$(on $i 'journalctl --no-pager; find /run/fleet /var/lib/fleet -type f \
            ! -path "*/secrets/*" -exec cat {} +' | grep -acFf "$T/words") || true
        [ "$found" = 0 ]
    done
}

@test "what is there is not written again; what has changed reaches a host that runs its system already" {
    rollout_secrets "$(system good s1)"
    before=$(worker h1)
    update
    assert_exit 0
    assert_state h1 unchanged
    [ -z "$(grants)" ]
    printf 'swordfish-two' >"$T/token"
    update
    assert_exit 0
    assert_state h1 unchanged '*' '1 secret was written'
    [ "$(grants)" = "h1 /run/fleet/secrets/token h2 /run/fleet/secrets/token" ]
    [ "$(on h1 cat /run/fleet/secrets/token)" = swordfish-two ]
    [ "$(worker h1)" != "$before" ]
}

@test "a secret that can't be had ends the host untouched, with the tool's words" {
    rollout_secrets "$(system good s2)" \
        'defaults.secrets.1.command=["sh", "-c", "echo no key for this machine >&2; exit 4"]'
    printf 'swordfish-three' >"$T/token"
    update
    assert_exit 3
    assert_state h1 failed secret-command 'no key for this machine'
    assert_serves h1 s1
    [ "$(on h1 cat /run/fleet/secrets/token)" = swordfish-two ]
}

@test "a version that fails goes back; the secret stays" {
    rollout_secrets "$(system http-500 s3)"
    update h1
    assert_exit 3
    assert_state h1 rolled_back
    assert_serves h1 s1
    [ "$(on h1 cat /run/fleet/secrets/token)" = swordfish-three ]
}

@test "a reboot brings them again before it is probed, and a unit that failed for want of them" {
    rollout_secrets "$(system good s1)" 'defaults.health=[
        {"name": "token", "type": "command", "from": "target",
         "run": ["test", "-s", "/run/fleet/secrets/token"]}]'
    fleet reboot --yes --json h1
    assert_exit 0
    assert_state h1 healthy
    [ "$(on h1 cat /run/fleet/secrets/token)" = swordfish-three ]
    [ "$(on h1 cat /run/fleet/secrets/late)" = swordfish-late ]
    on h1 'test ! -e /run/fleet/lock'
}
