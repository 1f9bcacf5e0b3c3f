# shellcheck shell=bash disable=SC2154,SC2034
# For tests in which a run's operator dies or leaves and `fleet resume` goes on: three hosts, and the
# words that such tests are made of.

load fleet_driver

window=60s # Whoever resumes comes in time, however busy this machine is.

setup_file() { begin_hosts 3; }
teardown_file() { end_hosts; }
setup() { load_hosts; }
teardown() {
    [ -z "${operator:-}" ] || kill -9 "$operator" 2>/dev/null || true
    tell || true
    # What failed leaves nothing in the way of the next.
    if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
        for h in h1 h2 h3; do
            on $h systemctl stop fleet-guard.service 2>/dev/null || true
            on $h rm -f /run/fleet/lock
        done
    fi
}

resume() { fleet resume --no-input --json "$@"; }

run_of() { basename "$(ls -d "$T"/state/runs/* 2>/dev/null | tail -n 1)"; } # the latest

journal() { cat "$T/state/runs/$(run_of)/journal.jsonl"; }

# grants HOST ACT: how often the run was granted that.
grants() { journal | grep -c "\"type\":\"grant\",\"host\":\"$1\".*\"act\":\"$2\"" || true; }

generation() { on "$1" readlink $profile | tr -dc 0-9; }

# fresh WORD...: an inventory in which h1 (and whatever is named) gets a version of its own.
fresh() { # VARIANT HOST...
    version=t$BATS_TEST_NUMBER
    local words=() host
    for host in "${@:2}"; do words+=("$host=$(system "$1" "$version" "$host")"); done
    inventory "${words[@]}" 'defaults.policy.min_healthy_time="3s"'
    new=$(system "$1" "$version" "$2")
    old=$(on "$2" readlink -f $profile)
    before=$(generation "$2")
}

die_at() { # HOST STATE
    await_state 40 "$1" "$2"
    kill -9 "$operator"
    wait "$operator" || true
    operator=
}

assert_seq_goes_on() { journal >"$events.all"; "$support/read_events.py" check "$events.all" "$root/fleet.events.schema.json"; }
