#!/bin/sh
# The second stage of booting, as NixOS's: this toplevel becomes the running and the booted system,
# then systemd takes over as PID 1. On the lighter kind of host there is no systemd, and what
# follows is a reaper that keeps the plain services' PID namespace alive.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
IN_STAGE_2=1
export IN_STAGE_2

@out@/activate
ln -sfn @out@ /run/booted-system

if [ "${TESTBED_KIND:-}" = light ]; then
    /usr/lib/fleet-testbed/services start-all
    : >/var/lib/fleet-testbed/ready
    exec perl -e 'while (1) { select(undef, undef, undef, 0.2) if wait() == -1 }'
fi
unset IN_STAGE_2
exec /lib/systemd/systemd
