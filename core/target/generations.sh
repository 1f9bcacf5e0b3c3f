#!/bin/sh
# The profile's generations. Argument: PROFILE.

links=
for link in "$PROFILE"-*-link; do
    [ ! -L "$link" ] || links=yes
done
[ -n "$links" ] || exit 0
TZ=UTC0 stat -c '%n %y' "$PROFILE"-*-link | while read -r link day hour _; do
    generation_of "$link"
    say gen "$generation ${day}T${hour%.*}Z $(readlink "$link")"
done
