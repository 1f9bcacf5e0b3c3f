#!/bin/sh
# The look-alike of NixOS's switch-to-configuration: same order, messages and exit codes
# (NIX-PROTOCOL.md 9.2). Usage: switch-to-configuration switch|boot|test|dry-activate|check
#
# switch: boot loader, then activation. boot: boot loader only. test: activation only.
# Exit: 1 usage, boot loader, daemon-reload failed; 2 activate failed; 4 units failed, whichever
# they are; 11 another one runs; 28 no room in /run; 100 needs a reboot, nothing was activated.
#
# NixOS has had two of them, which differ where /run is full: today's goes on without its lists, and
# where systemd refuses to reload it waits for that (three minutes) and ends, with everything it has
# stopped not started again. The older one, in Perl, dies at its lists before it stops anything; with
# a page for them it goes on without a reload, and exits 3. That one is played where /etc/testbed-perl is.
# Without a running systemd the services are plain processes (/usr/lib/fleet-testbed/services).
#
# Lists of units are words in one string: unit names have no blanks.
# shellcheck disable=SC2086,SC1007,SC2013,SC2015
PATH=/usr/bin:/bin:/usr/sbin:/sbin
export PATH
out=@out@
action=${1:-}
new=$(readlink -f "$out/etc/systemd/system")
old=$(readlink -f /etc/systemd/system 2>/dev/null || true)
plain=/usr/lib/fleet-testbed/services

say() { printf '%s\n' "$*" >&2; }
commas() { echo "$*" | xargs -n1 | sort -u | xargs | sed 's/ /, /g'; }
has_systemd() { [ -d /run/systemd/system ]; }

active_units() {
    if has_systemd; then
        systemctl list-units --plain --no-legend --no-pager \
            --state=active,activating,reloading | cut -d' ' -f1
    else
        $plain active
    fi
}

failed_units() { # failed, or waiting for a restart after a failure
    if ! has_systemd; then
        $plain failed
        return
    fi
    systemctl list-units --plain --no-legend --no-pager --state=failed | cut -d' ' -f1
    for unit in $(systemctl list-units --plain --no-legend --no-pager --state=auto-restart |
        cut -d' ' -f1); do
        [ "$(systemctl show --value --property=ExecMainStatus "$unit")" = 0 ] || echo "$unit"
    done
}

units() { # verb, units
    verb=$1
    shift
    [ $# -gt 0 ] || return 0
    if has_systemd; then systemctl "$verb" -- "$@" >&2; else $plain "$verb" "$@"; fi
}

start_wanted() { # units to start by name; whatever the targets want comes with them
    if has_systemd; then
        systemctl start -- "$@" sockets.target multi-user.target >&2
    else
        $plain start-all
    fi
}

# Sorts the active units of the old system into: gone or changed ones to stop, changed ones to
# start again, to restart in one step, to reload, and those that ask to be left alone.
compare_units() {
    to_stop= to_start= to_restart= to_reload= to_skip=
    for unit in $active; do
        [ -n "$old" ] && [ -f "$old/$unit" ] || continue
        if [ ! -f "$new/$unit" ]; then
            to_stop="$to_stop $unit"
        elif cmp -s "$old/$unit" "$new/$unit"; then
            :
        elif grep -q '^X-ReloadIfChanged=true' "$new/$unit"; then
            to_reload="$to_reload $unit"
        elif grep -q '^X-RestartIfChanged=false' "$new/$unit"; then
            to_skip="$to_skip $unit"
        elif grep -q '^X-StopIfChanged=false' "$new/$unit"; then
            to_restart="$to_restart $unit"
        else
            to_stop="$to_stop $unit"
            to_start="$to_start $unit"
        fi
    done
}

put_list() { # kind, units
    printf '%s\n' $2 >"/run/nixos/$1-list" || [ ! -e /etc/testbed-perl ] || exit 28
}

# What an interrupted run has left to do is done by the next one.
resume_lists() {
    for kind in start restart reload; do
        [ -s "/run/nixos/$kind-list" ] || continue
        for unit in $(cat "/run/nixos/$kind-list"); do
            [ -f "$new/$unit" ] || continue
            case $kind in
            start) to_start="$to_start $unit" ;;
            restart) to_restart="$to_restart $unit" ;;
            reload) to_reload="$to_reload $unit" ;;
            esac
        done
    done
}

dry_activate() {
    [ -z "$to_stop" ] || say "would stop the following units: $(commas $to_stop)"
    [ -z "$to_skip" ] || say "would NOT restart the following changed units: $(commas $to_skip)"
    say "would activate the configuration..."
    [ -z "$to_reload" ] || say "would reload the following units: $(commas $to_reload)"
    [ -z "$to_restart" ] || say "would restart the following units: $(commas $to_restart)"
    [ -z "$to_start" ] || say "would start the following units: $(commas $to_start)"
}

report() {
    fresh=
    for unit in $(active_units); do
        case " $active $to_start " in
        *" $unit "*) ;;
        *) case $unit in *.scope | *.device | *.slice | *.mount) ;; *) fresh="$fresh $unit" ;; esac ;;
        esac
    done
    [ -z "$fresh" ] || say "the following new units were started: $(commas $fresh)"
    failed=$(failed_units | xargs)
    if [ -n "$failed" ]; then
        say "warning: the following units failed: $(commas $failed)"
        ! has_systemd || SYSTEMD_COLORS=0 systemctl status --no-pager --full $failed >&2
        status=4
    fi
}

case $action in
switch | boot | test | dry-activate | check) ;;
*)
    say "Usage: $0 [check|switch|boot|test|dry-activate]"
    exit 1
    ;;
esac
[ "$(id -u)" = 0 ] || { say "$0: must be run as root"; exit 1; }
[ -e /etc/NIXOS ] || { say "This is not a NixOS installation!"; exit 1; }
[ "$action" != check ] || exit 0

if ! mkdir -p /run/nixos || ! true >>/run/nixos/switch-to-configuration.lock; then
    say "Could not open lock"
    exit 28
fi
exec 9>>/run/nixos/switch-to-configuration.lock
flock -n 9 || { say "Could not acquire lock"; exit 11; }

case $action in
switch | boot)
    if ! "$out/install-bootloader" "$out"; then
        say "Failed to install bootloader"
        exit 1
    fi
    ;;
esac
[ "${NIXOS_NO_SYNC:-}" = 1 ] || [ "$action" = dry-activate ] || sync -f /nix/store
[ "$action" != boot ] || exit 0

if ! cmp -s "$out/init-interface-version" /run/current-system/init-interface-version; then
    say "Warning: the new NixOS configuration has an init interface that is incompatible with the current one."
    say "The new configuration won't take effect until you reboot the system."
    exit 100
fi

active=$(active_units | xargs)
compare_units
resume_lists
if [ "$action" = dry-activate ]; then
    dry_activate
    exit 0
fi

# The children get no lock descriptor: a daemon that they start would hold it for ever.
put_list start "multi-user.target $to_start"
put_list restart "$to_restart"
put_list reload "$to_reload"
status=0
if [ -n "$to_stop" ]; then
    say "stopping the following units: $(commas $to_stop)"
    units stop $to_stop 9>&-
fi
[ -z "$to_skip" ] || say "NOT restarting the following changed units: $(commas $to_skip)"
say "activating the configuration..."
if ! "$out/activate" 9>&-; then
    say "Failed to run activate script"
    status=2
fi
if has_systemd; then
    # As NixOS does: old failures are forgotten, all of them. An old failed unit that a target wants
    # is started again below, fails again, and makes the exit code 4.
    systemctl reset-failed 2>/dev/null
    if ! systemctl daemon-reload 9>&-; then
        status=3
        if [ ! -e /etc/testbed-perl ]; then
            sleep 3
            say "systemd daemon reload failed, timeout after 180s"
            exit 1
        fi
    fi
else
    $plain reset-failed
fi
if [ -n "$to_reload" ]; then
    say "reloading the following units: $(commas $to_reload)"
    units reload $to_reload 9>&- || status=4
fi
if [ -n "$to_restart" ]; then
    say "restarting the following units: $(commas $to_restart)"
    units restart $to_restart 9>&- || status=4
fi
[ -z "$to_start" ] || say "starting the following units: $(commas $to_start)"
start_wanted $to_start 9>&- || status=4
rm -f /run/nixos/start-list /run/nixos/restart-list /run/nixos/reload-list
sleep 0.25
report
exit $status
