"""The pages that MkDocs makes rather than reads: the reference, the notebook, the benchmarks, the examples."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from blocks import DOCS, ROOT, blocks, pages
from hydra.core.global_hydra import GlobalHydra
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from reference import page

from senet.cli import COMMANDS, PROGRAMS, main

BENCHMARKS = ROOT / "benchmarks" / "results" / "cpu"
TESTED = """# Commands and what runs them

Each is run as it stands by `tests/documentation/test_pages.py`, in a folder with a trained run, photographs and
labels; trainings with the settings named, which make them small.

| page | command | how |
|---|---|---|"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages whose number nobody fixes to the navigation."""
    sections = {title: content for entry in config.nav for title, content in entry.items()}
    sections["Results"] = [
        {"Overview": sections["Results"]},
        *(f"results/{path.name}" for path in sorted((DOCS / "results").glob("*.md"))),
        *({f"Benchmark {path.stem}": f"benchmarks/{path.name}"} for path in sorted(BENCHMARKS.glob("*.md"))),
    ]
    if _examples():
        sections["How to"].append({"Examples": "howto/examples.md"})
    config.nav = [{title: content} for title, content in sections.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages themselves."""
    made = {
        "reference/configuration.md": page(),
        "reference/files.md": configuration_files(),
        "reference/commands.md": commands(),
        "reference/tested.md": tested(),
    }
    made |= {f"explanation/{path.stem}.md": notebook(path) for path in DOCS.glob("notebooks/*.ipynb")}
    if _examples():
        made["howto/examples.md"] = examples()
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    for path in (*BENCHMARKS.glob("*.md"), *BENCHMARKS.glob("*.png")):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    return files


def configuration_files() -> str:
    """Return every file of ``configs/``, whose first lines say what it is."""
    parts = [
        "# Configuration files\n\nWhat `GROUP=NAME` chooses. They lie in `configs/`, and in the wheel.\n"
    ]
    group = None
    for path in sorted((ROOT / "configs").glob("*/*.yaml")):
        if path.parent.name != group:
            group = path.parent.name
            parts.append(f"## {group}\n")
        parts.append(f"### {group}={path.stem}\n\n```yaml\n{path.read_text()}```\n")
    return "\n".join(parts)


def commands() -> str:
    """Return what every command says of itself with ``--help``."""
    os.environ["COLUMNS"] = "100"  # argparse asks for the width of the terminal
    parts = ["# Commands\n\nWhat `senet COMMAND --help` prints.\n"]
    for name in (*PROGRAMS, *COMMANDS):
        said = StringIO()
        with redirect_stdout(said), suppress(SystemExit):
            main([name, "--help"])
        GlobalHydra.instance().clear()
        parts.append(f"## senet {name}\n\n```text\n{said.getvalue().strip()}\n```\n")
    return "\n".join(parts)


def tested() -> str:
    """Return every command of the pages with what runs it, or why nothing does."""
    parts = [TESTED]
    for block in (block for path in pages() for block in blocks(path) if block.language == "bash"):
        how = (
            " ".join(["run", *(["with", *block.instead] if block.instead else [])])
            if block.runs
            else block.mark
        )
        parts += [f"| {block.page} | `{shlex.join(command)}` | {how} |" for command in block.commands()]
    return "\n".join(parts)


def notebook(path: Path) -> str:
    """Return a notebook's text, code, and what the code printed and drew."""
    return "\n\n".join(part for cell in json.loads(path.read_text())["cells"] for part in _cell(cell))


def _cell(cell: dict) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![What the code above draws](data:image/png;base64,{''.join(data['image/png']).strip()})"
        elif text := "".join(output.get("text", data.get("text/plain", []))):
            yield f"```text\n{text.rstrip()}\n```"


def examples() -> str:
    """Return every file of ``docs/examples/``, which tests run."""
    parts = ["# Examples\n\nPrograms that tests run.\n"]
    parts += [f"## {path.stem}\n\n```python\n{path.read_text()}```\n" for path in _examples()]
    return "\n".join(parts)


def _examples() -> list[Path]:
    return sorted((DOCS / "examples").glob("*.py"))
