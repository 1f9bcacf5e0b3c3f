#!/usr/bin/env bats
# The testbed itself: its hosts have to behave as NixOS machines do, or the tests on them prove
# nothing. Everything here is done by hand over ssh, without fleet.

bats_require_minimum_version 1.5.0

setup_file() {
    [ "$(id -u)" = 0 ] || skip "needs root"
    export TESTBED=$BATS_TEST_DIRNAME/../testbed/testbed
    FLEET_TESTBED=$(mktemp -d /var/tmp/testbed-bats.XXXXXX)
    export FLEET_TESTBED
    "$TESTBED" guard "$BATS_ROOT_PID"
    "$TESTBED" up 2
    eval "$("$TESTBED" env)"
    export NIX_CONFIG
    if [ "$("$TESTBED" status | awk 'NR == 1 { print $3 }')" != nspawn ]; then
        export LIGHT=1
    fi
}

teardown_file() {
    "$TESTBED" destroy
    [ ! -e "$FLEET_TESTBED" ]
}

needs_systemd() { [ -z "${LIGHT:-}" ] || skip "systemd-nspawn is refused here"; }

address() { "$TESTBED" env | sed -n "s/^TESTBED_ADDRESS_$1=//p"; }

page() { curl -s -m 3 --noproxy '*' "http://$(address "$1"):8080/$2"; }

on() { # host, command
    "$TESTBED" ssh "$@"
}

give() { # host, variant, version: builds and copies; sets `top`
    top=
    top=$("$TESTBED" build "$2" "$3")
    nix-store -qR "$top" | xargs nix-store --export | on "$1" "nix-store --import" >/dev/null
}

activate() { # host, variant, version, action
    give "$1" "$2" "$3"
    on "$1" "timeout 20 $top/bin/switch-to-configuration $4" 2>&1
}

commit() { # host, variant, version: the profile, then the boot menu
    give "$1" "$2" "$3"
    on "$1" "nix-env -p /nix/var/nix/profiles/system --set $top && $top/bin/switch-to-configuration boot" 2>&1
}

power_cycle() { # hosts
    "$TESTBED" down "$@"
    "$TESTBED" start "$@"
}

serves() { # host, version, within some seconds
    for _ in $(seq 1 30); do
        [ "$(page "$1" version)" != "$2" ] || return 0
        sleep 0.1
    done
    echo "h$1 serves '$(page "$1" version)', not '$2'" >&2
    return 1
}

@test "a fresh host serves v0, which is generation 1, current, booted and the boot default" {
    serves 1 v0
    serves 2 v0
    run -0 on 1 'readlink -f /nix/var/nix/profiles/system-1-link /run/current-system /run/booted-system; cat /boot/loader/default'
    [ "${#lines[@]}" = 4 ]
    [ "$(printf '%s\n' "${lines[@]}" | sort -u | wc -l)" = 1 ]
    run -0 on 1 'nix-store --verify --check-contents'
    [[ $output != *modified* ]]
}

@test "hosts are told apart: machine id, boot id, host key, name, store" {
    local what
    for what in 'cat /etc/machine-id' 'cat /proc/sys/kernel/random/boot_id' 'hostname' \
        'cat /etc/ssh/ssh_host_ed25519_key.pub'; do
        [ -n "$(on 1 "$what")" ]
        [ "$(on 1 "$what")" != "$(on 2 "$what")" ]
    done
    give 1 good v8
    on 1 "test -e $top"
    run -1 on 2 "test -e $top"
    [ "$(cat /etc/machine-id 2>/dev/null)" != "$(on 1 'cat /etc/machine-id')" ]
}

@test "systemd runs, with NixOS's bare PATH and none of this machine's services" {
    needs_systemd
    run -0 on 1 'systemctl is-system-running'
    [ "$output" = running ]
    [ "$(on 1 'systemctl show-environment | grep ^PATH=')" = PATH=/lib/systemd ]
    [ "$(on 1 'cat /proc/1/comm')" = systemd ]
    run on 1 'systemctl is-active postgresql docker ssh cron nix-daemon.service'
    [[ $'\n'$output$'\n' != *$'\n'active$'\n'* ]]
}

@test "sshd offers NixOS's algorithms only" {
    run ssh -F /dev/null -o BatchMode=yes -o MACs=hmac-sha2-256 -o Ciphers=aes128-ctr \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "root@$(address 1)" true
    [ "$status" = 255 ]
    [[ $output == *"no matching MAC found"* ]]
    on 1 true
}

@test "test activates and touches neither the profile nor the boot menu; a power cut takes it back" {
    local before boot_id profile=/nix/var/nix/profiles/system
    # With a generation of its own, so that only `test` itself keeps it out of the menu.
    give 1 good v1
    on 1 "nix-env -p $profile --set $top"
    before=$(on 1 'readlink /nix/var/nix/profiles/system; cat /boot/loader/default; ls -R /boot')
    boot_id=$(on 1 'cat /proc/sys/kernel/random/boot_id')
    run -0 activate 1 good v1 test
    [[ $output == *"stopping the following units: web.service"* ]]
    [[ $output == *"activating the configuration..."* ]]
    serves 1 v1
    [ "$(on 1 'readlink /run/current-system')" = "$("$TESTBED" build good v1)" ]
    [ "$(on 1 'readlink /nix/var/nix/profiles/system; cat /boot/loader/default; ls -R /boot')" = "$before" ]
    on 1 "nix-env -p $profile --switch-generation 1 && nix-env -p $profile --delete-generations 2"
    on 1 'echo lost >/run/kept; echo stays >/var/lib/kept'
    power_cycle 1
    serves 1 v0
    [ "$(on 1 'cat /proc/sys/kernel/random/boot_id')" != "$boot_id" ]
    [ "$(on 1 'cat /var/lib/kept; cat /run/kept 2>/dev/null')" = stays ]
}

@test "boot changes the menu only, and the next start obeys it" {
    run -0 commit 1 good v2
    serves 1 v0
    power_cycle 1
    serves 1 v2
    [ "$(on 1 'readlink /run/booted-system')" = "$(on 1 'readlink -f /nix/var/nix/profiles/system')" ]
}

@test "boot without a generation of the profile leaves the default as it is" {
    local before
    before=$(on 1 'cat /boot/loader/default')
    run -0 activate 1 good v3 boot
    [ "$(on 1 'cat /boot/loader/default')" = "$before" ]
}

@test "a full /boot fails boot and leaves the old menu" {
    local before
    before=$(on 1 'cat /boot/loader/default')
    "$TESTBED" fill 1 boot
    run commit 1 good v4
    [ "$status" = 1 ]
    [[ $output == *"Failed to install bootloader"* ]]
    [ "$(on 1 'cat /boot/loader/default')" = "$before" ]
    "$TESTBED" unfill 1 boot
    run -0 commit 1 good v4
    [ "$(on 1 'cat /boot/loader/default')" != "$before" ]
}

@test "each variant ends with its own exit code" {
    run -2 activate 2 fail-activate v1 test
    [[ $output == *"Failed to run activate script"* ]]
    run -4 activate 2 unit-fails v2 test
    [[ $output == *"the following units failed: migrate.service"* ]]
    run -100 activate 2 init-interface v3 test
    run -127 activate 2 exec-format v4 test
    run -0 activate 2 http-500 v5 test
    [ "$(page 2 health)" = "broken in v5" ]
    run -0 activate 2 good v6 dry-activate
    [[ $output == *"would stop the following units: web.service"* ]]
    run -0 activate 2 good v6 test
    run "$TESTBED" build fail-build v7
    [ "$status" != 0 ]
    [[ $output == *"has no member named 'colour'"* ]]
    run "$TESTBED" build fail-eval v7
    [ "$status" != 0 ]
    [[ $output == *"services.web.colour"* ]]
}

@test "a service that dies after 5 s is not seen by the activation" {
    run -0 activate 2 dies-after-5s v8 test
    serves 2 v8
    sleep 5.5
    run page 2 version
    [ "$status" != 0 ]
    run -0 activate 2 good v9 test
    serves 2 v9
}

@test "a crash loop never fails, and restarts" {
    needs_systemd
    run -0 activate 2 crash-loop v10 test
    sleep 4.5
    [ "$(on 2 'systemctl show --value -p NRestarts web.service')" -ge 1 ]
    run -1 on 2 'systemctl is-failed -q web.service'
}

@test "a version that breaks sshd lets no one in, keeps the session, and the old one repairs it" {
    local said=$BATS_TEST_TMPDIR/session order=$BATS_TEST_TMPDIR/order session go
    mkfifo "$order"
    # It waits for its order: no new session could bring one.
    on 2 'echo here; read -r go; setsid $(readlink -f /nix/var/nix/profiles/system)/bin/switch-to-configuration test </dev/null >/dev/null 2>&1; echo alive' \
        <"$order" >"$said" &
    session=$!
    exec {go}>"$order"
    timeout 90 bash -c 'until grep -q here "$0"; do sleep 0.1; done' "$said"
    run -0 activate 2 breaks-sshd v11 test
    run on 2 true
    [ "$status" = 255 ]
    echo go >&"$go"
    exec {go}>&-
    wait "$session"
    grep -qx alive "$said"
    on 2 true
}

@test "a hanging activation ignores SIGTERM and holds the lock; a power cut ends it" {
    give 2 hangs v12
    on 2 "setsid $top/bin/switch-to-configuration test </dev/null >/dev/null 2>&1 &"
    sleep 1
    on 2 "pkill -f '^/bin/sh $top/activate'; sleep 0.3; pgrep -f '^/bin/sh $top/activate'"
    run -11 activate 2 good v13 test
    [[ $output == *"Could not acquire lock"* ]]
    power_cycle 2
    serves 2 v0
}

@test "a reboot from within comes back in the boot default, with a new boot id" {
    needs_systemd
    local before after=''
    before=$(on 2 'cat /proc/sys/kernel/random/boot_id')
    on 2 'systemctl reboot' || true
    for _ in $(seq 1 50); do
        sleep 0.2
        after=$(on 2 'cat /proc/sys/kernel/random/boot_id' 2>/dev/null || true)
        [ -z "$after" ] || [ "$after" = "$before" ] || break
    done
    [ -n "$after" ]
    [ "$after" != "$before" ]
}

@test "a version with another kernel shows it between booted and current system" {
    run -0 activate 2 reboot v14 test
    [ "$(on 2 'readlink -f /run/booted-system/kernel')" != "$(on 2 'readlink -f /run/current-system/kernel')" ]
    power_cycle 2
}

@test "an old failed unit makes every activation end with 4" {
    needs_systemd
    "$TESTBED" fail-unit 2
    run -4 activate 2 good v15 test
    [[ $output == *"the following units failed: legacy-backup.service"* ]]
    serves 2 v15
}

@test "a frozen host answers nothing and goes on after the thaw" {
    [ -f "$FLEET_TESTBED/cgroup" ] || skip "no cgroup v2 here"
    "$TESTBED" freeze 1
    run page 1 version
    [ "$status" = 28 ]
    "$TESTBED" thaw 1
    on 1 true
}

@test "flavours: fish, users with sudo, a small /nix, a network of its own" {
    "$TESTBED" up 2 --first 3 --flavour fish 3 --flavour ops 4 --flavour small-nix 4 --net 3
    [[ $(on 3 'echo $FISH_VERSION') == [0-9]* ]]
    eval "$("$TESTBED" env)"
    local user=(ssh -F /dev/null -i "$TESTBED_KEY" -o BatchMode=yes -o UserKnownHostsFile="$TESTBED_KNOWN_HOSTS")
    [ "$("${user[@]}" "ops@$(address 4)" sudo -n id -u)" = 0 ]
    run "${user[@]}" "opsp@$(address 4)" sudo -n id -u
    [ "$status" != 0 ]
    [ "$("${user[@]}" "opsp@$(address 4)" sudo -S -p marker id -u <"$TESTBED_OPSP_PASSWORD_FILE")" = 0 ]
    "$TESTBED" fill 4 nix
    # (Nix itself may say so or die by SIGBUS, since SQLite maps a file that can't grow.)
    run on 4 'dd if=/dev/zero of=/nix/store/.try bs=1M count=4; rm /nix/store/.try'
    [[ $output == *"No space left on device"* ]]
    "$TESTBED" unfill 4 nix
    top=$("$TESTBED" build good v1 --paths 4 --bytes 4000000)
    nix-store -qR "$top" | xargs nix-store --export | on 4 "nix-store --import" >/dev/null
}

@test "a version that takes the network away cuts the host off, the old one gives it back" {
    needs_systemd
    give 3 no-network v1
    on 3 "printf '#!/bin/sh\n$top/bin/switch-to-configuration test\n/usr/bin/sleep 3\n/nix/var/nix/profiles/system/bin/switch-to-configuration test\n' >/run/go; chmod +x /run/go; systemd-run -q --unit=go /run/go"
    sleep 2
    run curl -s -m 1 --noproxy '*' "http://$(address 3):8080/version"
    [ "$status" = 28 ]
    sleep 2.5
    on 3 true
    serves 3 v0
}

@test "the inventory is JSON with every host, and the flake evaluates to the same shape" {
    "$TESTBED" inventory --version v2 | jq -e '.hosts | keys | length == 4'
    "$TESTBED" inventory --path /nix/store/x | jq -e '.hosts.h1.system.path == "/nix/store/x"'
    "$TESTBED" flake "$BATS_TEST_TMPDIR/flake" --version v2
    local top
    top=$(nix eval --raw "path:$BATS_TEST_TMPDIR/flake#nixosConfigurations.h2.config.system.build.toplevel")
    [[ $top == /nix/store/*-nixos-system-h2-24.05.2 ]]
    [ "$top" = "$("$TESTBED" build good v2 h2)" ]
    [ "$(nix-instantiate --eval --json --argstr version v2 -A h2.outPath "$BATS_TEST_DIRNAME/../testbed/system/default.nix" | jq -r .)" = "$top" ]
}

@test "extra paths are new with each version and have the size asked for" {
    local one two
    one=$("$TESTBED" build good v1 --paths 60 --bytes 600000)
    two=$("$TESTBED" build good v2 --paths 60 --bytes 600000)
    [ "$(nix-store -qR "$one" | grep -c -- '-libextra')" = 60 ]
    [ -z "$(comm -12 <(nix-store -qR "$one" | grep libextra | sort) <(nix-store -qR "$two" | grep libextra | sort))" ]
    [ "$(nix-store -qR "$one" | grep libextra | sed 's|$|/data|' | xargs cat | wc -c)" = 600000 ]
}

@test "sixteen hosts come up side by side with these" {
    local start end other
    other=$(mktemp -d /var/tmp/testbed-bats.XXXXXX)
    FLEET_TESTBED=$other "$TESTBED" guard "$BATS_ROOT_PID"
    start=$(date +%s%N)
    FLEET_TESTBED=$other "$TESTBED" up 16
    end=$(date +%s%N)
    echo "# 16 hosts up in $(((end - start) / 1000000)) ms" >&3
    [ "$(FLEET_TESTBED=$other "$TESTBED" status | awk '$2 == "up" && $5 == "v0"' | wc -l)" = 16 ]
    FLEET_TESTBED=$other "$TESTBED" destroy
    serves 1 "$(page 1 version)"
}

@test "the lighter kind has no systemd and obeys its boot menu too" {
    local other
    other=$(mktemp -d /var/tmp/testbed-bats.XXXXXX)
    local FLEET_TESTBED=$other
    "$TESTBED" guard "$BATS_ROOT_PID"
    "$TESTBED" up 1 --kind light
    run -1 on 1 'test -e /run/systemd/system'
    run -0 activate 1 good v1 test
    serves 1 v1
    run -4 activate 1 unit-fails v2 test
    power_cycle 1
    serves 1 v0
    run -0 commit 1 good v3
    power_cycle 1
    serves 1 v3
    "$TESTBED" destroy
}

@test "where nspawn is refused, up says why and takes the lighter kind" {
    local other bin=$BATS_TEST_TMPDIR/bin
    other=$(mktemp -d /var/tmp/testbed-bats.XXXXXX)
    mkdir "$bin"
    printf '#!/bin/sh\necho "Failed to move root directory: Operation not permitted" >&2\nexit 1\n' >"$bin/systemd-nspawn"
    chmod +x "$bin/systemd-nspawn"
    local FLEET_TESTBED=$other
    "$TESTBED" guard "$BATS_ROOT_PID"
    PATH=$bin:$PATH run -0 "$TESTBED" up 1
    [[ $output == *"refused here: Failed to move root directory: Operation not permitted"* ]]
    [[ $output == *"falling back to the lighter kind"* ]]
    [ "$("$TESTBED" status | awk '{ print $3 }')" = light ]
    "$TESTBED" destroy
}

@test "a testbed whose guarded process is killed goes away by itself" {
    local other pid
    other=$(mktemp -d /var/tmp/testbed-bats.XXXXXX)
    sleep 600 3>&- &
    pid=$!
    FLEET_TESTBED=$other "$TESTBED" up 1
    FLEET_TESTBED=$other "$TESTBED" guard "$pid"
    kill -KILL "$pid"
    for _ in $(seq 1 50); do
        [ -e "$other" ] || break
        sleep 0.2
    done
    [ ! -e "$other" ]
}
