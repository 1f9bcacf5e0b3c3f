#!/bin/sh
# Reboots after this script has answered.

start_reboot() {
    sleep 1
    if has_systemd; then
        systemctl --no-block reboot
    else
        reboot
    fi
}

has_systemd || command -v reboot >/dev/null || fail "there is no program to reboot this host with"
start_reboot </dev/null >/dev/null 2>&1 &
say reboot started
