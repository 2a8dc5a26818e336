# runs_dir=~/runs (quoted for Hydra, or from a file): a folder named ~ is made, checkpoints go to the real home, the run ends after its first epoch with nothing saved
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
export HOME="$W/home"; mkdir "$HOME"; mkdir "$W/cwd"; cd "$W/cwd" || exit 3
timeout 400 "$PY" "$REPO/train.py" $SMALL data.root="$W/d" "runs_dir='~/runs'" > "$W/log" 2>&1; rc=$?; tail -3 "$W/log" | cut -c1-300
find "$W/cwd" "$HOME" -name '*.ckpt*'
[ $rc = 0 ] && [ -f "$(echo "$HOME"/runs/2*/checkpoints/last.ckpt)" ] && exit 0
[ $rc = 2 ] && [ ! -d "./~" ] && exit 0
echo "FAULT: trained an epoch, and no checkpoint is where the run is"; exit 1
