"""The notebook's cells run, and still say what is shown under them."""

import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "se_block.ipynb"


@pytest.mark.slow
def test_the_cells_run_and_say_what_is_shown(monkeypatch: pytest.MonkeyPatch):
    """Figures differ a little from machine to machine, words and shapes do not."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn: list[int] = []
    monkeypatch.setattr(pyplot, "show", lambda: drawn.extend(pyplot.get_fignums()))
    names: dict[str, object] = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            said = StringIO()
            with redirect_stdout(said):
                exec("".join(cell["source"]), names)
            shown = "".join(line for output in cell["outputs"] for line in output.get("text", []))
            assert re.sub(r"\d+\.\d+", "#", said.getvalue()) == re.sub(r"\d+\.\d+", "#", shown)
            assert len(drawn) == sum("data" in output for output in cell["outputs"])
            drawn.clear()
            pyplot.close("all")
