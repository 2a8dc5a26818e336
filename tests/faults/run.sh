#!/usr/bin/env bash
# Tries faults for real, as a user meets them: PY=python bash tests/faults/run.sh [NAME ...]
# Each case exits 0 where the right behaviour is shown, 1 where the fault is there, 3 where it cannot be tried here.
# The last lines of each are shown; exit status 1 if any fault is there. All of them take about half an hour.
set -u
here=$(cd "$(dirname "$0")" && pwd)
REPO=$(cd "$here/../.." && pwd)
export REPO PY="${PY:-python}"
[ $# -gt 0 ] || set -- $(cd "$here/cases" && ls ./*.sh | sed 's/.*\///; s/\.sh$//')
words=("right" "FAULT" "FAULT" "not tried")
right=0 faults=0
for name; do
    start=$SECONDS
    said=$(timeout 3600 bash "$here/cases/$name.sh" 2>&1)
    status=$?
    [ $status -le 3 ] || status=1
    [ $status = 0 ] && right=$((right + 1))
    [ $status = 1 ] || [ $status = 2 ] && faults=$((faults + 1))
    printf '%-10s%-28s%4d s  %s\n' "${words[$status]}" "$name" $((SECONDS - start)) "$(head -1 "$here/cases/$name.sh" | cut -c3-)"
    [ $status = 0 ] || printf '%s\n' "$said" | tail -5 | sed 's/^/          /'
done
echo "$right of $# right, $faults faults, $(($# - right - faults)) not tried"
[ $faults = 0 ]
