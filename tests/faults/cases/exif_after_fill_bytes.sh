# A JPEG with EXIF orientation 6 and a legal fill byte (FF) before the segment: decoder=fast rotates it, Pillow does not
. "$(dirname "$0")/../lib.sh"
timeout 400 "$PY" - <<'X'
import io, sys, numpy as np
from PIL import Image
from senet.data.files.decoders import decode_reference, decode_torchcodec, torchcodec_available
if not torchcodec_available():
    print("torchcodec is not installed: nothing to compare"); sys.exit(3)
exif = Image.Exif(); exif[0x112] = 6
stream = io.BytesIO(); Image.fromarray(np.arange(40 * 60 * 3, dtype="uint8").reshape(40, 60, 3)).save(stream, "JPEG", exif=exif)
data = stream.getvalue()
at = data.index(b"\xff\xe1")                       # APP1; T.81 B.1.1.2: any marker may be preceded by FF bytes
filled = data[:at] + b"\xff" + data[at:]
bad = 0
for name, bytes_ in (("plain", data), ("with a fill byte", filled)):
    a, b = decode_reference(bytes_, "RGB"), decode_torchcodec(bytes_, "RGB")
    same = a.shape == b.shape and bool((a == b).all())
    print(f"{name}: Pillow {tuple(a.shape)}, fast {tuple(b.shape)}, equal {same}"); bad += not same
sys.exit(1 if bad else 0)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
