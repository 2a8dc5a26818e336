# 16-bit grey PNG/TIFF (and 32-bit, float): nearly every pixel is clipped to 255 (or 0), without a word
. "$(dirname "$0")/../lib.sh"
timeout 400 "$PY" - <<'X'
import io, sys, numpy as np
from PIL import Image
from senet.data.files.decoders import decode_reference
ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
bad = 0
for name, array, form in (("16-bit PNG", ramp.astype("uint16"), "PNG"), ("16-bit TIFF", ramp.astype("uint16"), "TIFF")):
    stream = io.BytesIO(); Image.fromarray(array).save(stream, form)
    try:
        x = decode_reference(stream.getvalue(), "RGB").float()
    except Exception as error:
        print(name, "refused:", error); continue            # a refusal that says so is right, too
    white, levels = float((x == 255).float().mean()), len(x.unique())
    print(f"{name}: {levels} levels, {100 * white:.1f} % of the pixels are 255")
    bad += white > 0.02 or levels < 200
sys.exit(1 if bad else 0)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
