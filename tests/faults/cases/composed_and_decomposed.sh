# train/cafe with one code point for e-acute, val/ with two (zip made on macOS): "no class of this name" with two names that look the same
. "$(dirname "$0")/../lib.sh"
mk "$W/d" "$(printf 'caf\xc3\xa9'),bee" 8 3 || exit 3
mv "$W/d/val/$(printf 'caf\xc3\xa9')" "$W/d/val/$(printf 'cafe\xcc\x81')"
train $SMALL data.root="$W/d"; rc=$?
[ $rc = 0 ] && exit 0
grep -qiE "unicode|normali|NFC|NFD|composed" "$W/log" && exit 0
echo "FAULT: the message cannot be understood"; exit 1
