#!/bin/sh
# Gives a run's roots up. Argument: STAGE_RUN.

rm -f "$ROOTS/stage-$STAGE_RUN" "$ROOTS/before-$STAGE_RUN"
say root gone
