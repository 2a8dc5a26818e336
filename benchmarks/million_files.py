"""How long does a training set of a million files take to start, and how much memory: cold and from the cached index?

python benchmarks/million_files.py DIR [--files 1000000]     DIR gets the empty files, once
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

START = """
import json, resource, sys, time
from pathlib import Path
began = time.perf_counter()
from senet.data.files.folder import scan
imported = time.perf_counter()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tree = scan(Path(sys.argv[1]))
from senet.data.loader import TrainLoader
from senet.data.datasets import FileDataset
from senet.data import Preprocessing
loader = TrainLoader(FileDataset(tree, Preprocessing(), None), min(256, len(tree)), seed=0)
first = next(iter(loader.selections()))
print(json.dumps({
    "files": len(tree), "classes": len(tree.classes), "import_s": round(imported - began, 2),
    "seconds": round(time.perf_counter() - imported, 2),
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "peak_before_mb": before // 1024,
    "last": tree.name(len(tree) - 1),
}))
"""


def main() -> None:
    """Make the files, start twice, print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    args = parser.parse_args()
    for number in range(args.classes):
        folder = args.directory / f"n{number:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(args.files // args.classes):
            os.close(os.open(folder / f"n{number:08d}_{index}.JPEG", os.O_CREAT | os.O_WRONLY))
        os.utime(folder, (1e9, 1e9))
    os.utime(args.directory, (1e9, 1e9))
    with tempfile.TemporaryDirectory() as cache:
        for label in ("first start", "from the index"):
            result = subprocess.run(
                [sys.executable, "-c", START, str(args.directory)],
                env=os.environ | {"XDG_CACHE_HOME": cache, "PYTHONPATH": str(Path(__file__).parents[1])},
                capture_output=True,
                text=True,
                check=True,
            )
            print(json.dumps({"what": label, **json.loads(result.stdout)}))


if __name__ == "__main__":
    main()
