"""The page of every key names them all, and says of each what it does."""

import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
from reference import Section, page, sections  # noqa: E402


@pytest.fixture(scope="module")
def shown() -> list[Section]:
    return sections()


def flat(values: object, prefix: str) -> set[str]:
    if not isinstance(values, dict) or not values:
        return {prefix.rstrip(".")}
    return {key for name, inner in values.items() for key in flat(inner, f"{prefix}{name}.")}


@pytest.mark.slow
def test_every_key_of_the_configuration_files_is_there(shown: list[Section]):
    """What the files can set is known from the files, without the schema."""
    there = {key.name for section in shown for key in section.keys}
    there |= {name.rpartition(".")[0] for name in there}  # sections may be null as a whole
    groups = ("data", "logger", "optimizer", "schedule", "se", "trainer", "launcher")
    for path in (ROOT / "configs").glob("*/*.yaml"):
        if path.parent.name in groups:
            values = {
                k: v
                for k, v in yaml.safe_load(path.read_text()).items()
                if k not in ("defaults", "parameters")
            }
            assert flat(values, f"{path.parent.name}.") <= there, path
    for name in ("train", "eval"):
        values = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())
        values = {k: v for k, v in values.items() if k not in ("defaults", "hydra", "resume")}
        assert flat(values, "") <= there, name


def test_every_key_says_what_it_does(shown: list[Section]):
    silent = {key.name for section in shown for key in section.keys if not key.effect}
    assert not silent, f"write a line on them under Attributes: in the docstring of their class: {silent}"


@pytest.mark.slow
def test_ranges_defaults_and_needs_are_said():
    lines = page().splitlines()
    for line in (
        "| `se.gate` | a text | `sigmoid` | The last non-linearity",
        '| `loss.name` | "cross_entropy" or "bce" | `cross_entropy` | "cross_entropy", or "bce"',
        "| `ema.decay` | a number above 0 and below 1 or null | `null` |",
        "| `trainer.limit_train_batches` | a whole number of 1 or more or a number above 0 and to 1 | `1.0` |",
        "| `optimizer.lr` | a number above 0 | `0.1` |",
        "| `optimizer.lr` | a number above 0 | `0.005` |",
    ):
        assert any(there.startswith(line) for there in lines), line
    assert any(x.startswith("| `augment.pad` ") and x.endswith("Needs augment.crop=pad. |") for x in lines)
