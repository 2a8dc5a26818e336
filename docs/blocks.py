"""The commands and programs of README.md and docs/: what runs each, or why nothing does.

A comment before a block of `bash` or `python` says so:

    <!-- run -->                        as it stands
    <!-- run: KEY=VALUE ... -->         with these settings in the place of its own, which make a training small
    <!-- run: refused -->               it ends with a message and exit status 2, as the text around it says
    <!-- not run: why -->
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*) -->\n)?^(?P<indent> *)```(?P<language>bash|python)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of a page.

    Attributes:
        page: its path from the root of the repository.
        line: of its first command.
        language: "bash" or "python".
        mark: of the comment before it; empty if there is none.
        code: without the indentation of the block.
    """

    page: str
    line: int
    language: str
    mark: str
    code: str

    @property
    def runs(self) -> bool:
        """Whether it is run."""
        return self.mark == "run" or self.mark.startswith("run: ")

    @property
    def instead(self) -> list[str]:
        """What is set in the place of its own settings."""
        return [] if self.refused else shlex.split(self.mark.removeprefix("run").removeprefix(": "))

    @property
    def refused(self) -> bool:
        """Whether it must fail."""
        return self.mark == "run: refused"

    def commands(self) -> Iterator[list[str]]:
        """Yield the words of every command, without comments."""
        for line in self.code.replace("\\\n", " ").splitlines():
            words = [*shlex.split(line, comments=True), "&&"]
            while words:
                end = words.index("&&")
                if end:
                    yield words[:end]
                words = words[end + 1 :]


def pages() -> list[Path]:
    """Return README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in their order."""
    text, found = page.read_text(), []
    for match in _BLOCK.finditer(text):
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        line = text[: match.start("code")].count("\n") + 1
        found.append(Block(str(page.relative_to(ROOT)), line, match["language"], match["mark"] or "", code))
    return found
