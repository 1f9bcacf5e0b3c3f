#!/bin/sh
# What is at the places of secrets: nothing of their contents but its SHA-256 leaves the host.
# Argument: PATHS, one a line. Keys: secret (repeated): "SHA256 OWNER GROUP MODE PATH"; restart
# (yes|no: units have yet to be restarted for want of what secret_put.sh wrote).

printf '%s\n' "$PATHS" | while IFS= read -r path; do
    [ -f "$path" ] || continue
    hash=$(sha256sum <"$path" 2>/dev/null) || continue
    say secret "${hash%% *} $(stat -L -c '%U %G %a' "$path") $path"
done
if [ -s "$RUN/restart" ]; then say restart yes; else say restart no; fi
