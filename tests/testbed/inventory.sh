# shellcheck shell=bash
# What an operator needs to know about the hosts: known_hosts, an inventory (CONTRACT.md), a flake,
# shell variables.

inventory_known_hosts() {
    local i file=$state/known_hosts
    for i in $(host_numbers); do
        [ -f "$(host_dir "$i")/complete" ] || continue
        printf '%s %s\n' "$(host_address "$i")" \
            "$(cut -d' ' -f1,2 "$(host_dir "$i")/upper/etc/ssh/ssh_host_ed25519_key.pub")"
    done >"$file.new.$$"
    mv "$file.new.$$" "$file"
}

# Tags: db for every host, canary for the first, odd and even, and each flavour.
inventory_host() { # number, system as JSON or ""
    local i=$1 dir flavours tags user='' first
    dir=$(host_dir "$i")
    flavours=$(cat "$dir/flavour")
    first=$(host_numbers | head -1)
    tags='"db"'
    [ "$i" != "$first" ] || tags+=', "canary"'
    if [ $((i % 2)) = 1 ]; then tags+=', "odd"'; else tags+=', "even"'; fi
    for flavour in $flavours; do
        tags+=", \"$flavour\""
        case $flavour in
        ops) user=', "user": "ops", "sudo": true' ;;
        opsp) user=", \"user\": \"opsp\", \"sudo\": true, \"password_command\": [\"cat\", \"$state/opsp-password\"]" ;;
        esac
    done
    printf '    "h%s": { "address": "%s", "tags": [%s]%s%s' "$i" "$(host_address "$i")" "$tags" "$user" \
        "${2:+, \"system\": $2}"
    printf ',\n      "health": [ { "name": "web", "type": "http", "url": "http://${address}:8080/health" } ] }'
}

inventory_print() {
    local variant=good version=v1 paths=0 bytes=0 path='' flake='' i system comma=''
    while [ $# -gt 0 ]; do
        case $1 in
        --variant) variant=$2 ;;
        --version) version=$2 ;;
        --paths) paths=$2 ;;
        --bytes) bytes=$2 ;;
        --path) path=$2 ;;
        --flake) flake=$2 ;;
        *) die "inventory: unknown word '$1'; see testbed help" ;;
        esac
        shift 2
    done
    cat <<JSON
{
  "version": 1,
  "name": "testbed",
  "defaults": {
    "user": "root", "port": 22, "identity_file": "$key",
    "known_hosts": "$state/known_hosts", "host_key_check": "strict",
    "nix_options": { "sandbox": "false", "substituters": "", "build-users-group": "" }
  },
  "hosts": {
JSON
    for i in $(host_numbers); do
        system="{ \"file\": \"$here/system/default.nix\", \"attr\": \"h$i\", \"args\": { \"variant\": \"$variant\", \"version\": \"$version\", \"paths\": \"$paths\", \"bytes\": \"$bytes\" } }"
        [ -z "$path" ] || system="{ \"path\": \"$path\" }"
        [ -z "$flake" ] || system=''
        printf '%s' "$comma"
        comma=$',\n'
        inventory_host "$i" "$system"
    done
    printf '\n  }\n}\n'
}

inventory_flake() { # DIR [--variant V] [--version V]
    local dir=$1 variant=good version=v1 i comma=''
    shift
    while [ $# -gt 0 ]; do
        case $1 in
        --variant) variant=$2 ;;
        --version) version=$2 ;;
        *) die "flake: unknown word '$1'; see testbed help" ;;
        esac
        shift 2
    done
    mkdir -p "$dir"
    cp "$here"/system/*.nix "$here"/system/*.sh "$here"/system/*.pl "$dir"
    {
        printf '{'
        for i in $(host_numbers); do
            printf '%s\n  "h%s": { "variant": "%s", "version": "%s" }' "$comma" "$i" "$variant" "$version"
            comma=,
        done
        printf '\n}\n'
    } >"$dir/hosts.json"
    inventory_print --flake yes >"$dir/fleet.json"
}

inventory_env() {
    local i
    printf 'export FLEET_TESTBED=%q\n' "$state"
    printf 'export NIX_CONFIG=%q\n' "$(systems_nix_config)"
    printf 'TESTBED_KEY=%q\n' "$key"
    printf 'TESTBED_KNOWN_HOSTS=%q\n' "$state/known_hosts"
    printf 'TESTBED_SEED=%q\n' "$(cat "$state/template/seed")"
    printf 'TESTBED_OPSP_PASSWORD_FILE=%q\n' "$state/opsp-password"
    printf 'TESTBED_HOSTS=%q\n' "$(host_numbers | xargs)"
    for i in $(host_numbers); do
        printf 'TESTBED_ADDRESS_%s=%q\nTESTBED_PORT_%s=22\nTESTBED_KIND_%s=%q\n' \
            "$i" "$(host_address "$i")" "$i" "$i" "$(cat "$(host_dir "$i")/kind")"
    done
}
