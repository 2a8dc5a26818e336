"""Random overrides made from the schema: one clear line that names the key, or a run that was checked."""

import math
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from hydra import compose as hydra_compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from senet import UserError
from senet.data.config import DATA_SETS
from senet.ranges import bare, bounds, in_words, keys_of, members, walk
from senet.training import entry
from senet.training.config import RunConfig

ROOT = Path(__file__).parents[2]
LIBRARY = re.compile(r"Input should be|valid (integer|number|string|boolean)|pydantic|validation error|Traceback|"
                     r"Error:|omegaconf|hydra\.|not iterable|NoneType|index out of", re.I)  # fmt: skip


def numbers() -> dict[str, list]:
    """Return every dotted key of a number, with the members of its type that are numbers."""
    keys = dict(walk(RunConfig)) | {
        f"data.{key}": kind for data in DATA_SETS.values() for key, kind in walk(data)
    }
    found = {key: [m for m in members(kind) if bare(m) in (int, float)] for key, kind in keys.items()}
    return {key: kinds for key, kinds in found.items() if kinds}


def allowed(kind, value: float) -> bool:
    """Whether a number lies in a type's range, by arithmetic and not by pydantic."""
    limits = bounds(kind)
    if not math.isfinite(value) or (bare(kind) is int and value != int(value)):
        return False
    tests = {"ge": value.__ge__, "gt": value.__gt__, "le": value.__le__, "lt": value.__lt__}
    return all(tests[name](type(value)(limit)) for name, limit in limits.items())


def answer(*overrides: str) -> str:
    """Return the line that a user would read, or "" for a run that is right as far as can be seen."""
    entry.register_models()
    try:
        composing = (
            nullcontext()
            if GlobalHydra.instance().is_initialized()
            else initialize_config_dir(str(ROOT / "configs"), version_base="1.3")
        )
        with composing:
            values = entry.plain(hydra_compose("train", overrides=list(overrides)))
        values.pop("resume", None)
        entry.check_run(values, overrides)
    except UserError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException) as error:
        return entry.explain(error)
    return ""


def check_line(line: str, key: str) -> None:
    assert "\n" not in line
    assert len(line) < 400, line
    assert not LIBRARY.search(line), line
    assert key.rpartition(".")[2] in line, line


def test_every_number_has_a_range():
    without = {key for key, kinds in numbers().items() if not all(bounds(k) for k in kinds)}
    assert not without


@pytest.mark.slow
def test_random_numbers():
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    everything = numbers()
    values = st.one_of(
        st.integers(-3, 3), st.integers(-(10**6), 10**6), st.floats(allow_nan=True, allow_infinity=True),
        st.floats(-0.1, 1.1), st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]),
    )  # fmt: skip

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @hypothesis.given(st.sampled_from(sorted(everything)), values)
    def tried(key: str, value: float) -> None:
        line = answer(*NEEDED.get(key, ()), f"++{key}={value}")
        fits = any(allowed(kind, value) for kind in everything[key])
        fits |= str(value) in in_words(dict(walk(RunConfig)).get(key)).split(" or ")  # -1 of max_steps
        if line:
            check_line(line, key)
        else:
            assert fits, f"{key}={value} was accepted"

    tried()


EXAMPLES = int(os.environ.get("SENET_EXAMPLES", "60"))
NEEDED: dict[str, tuple[str, ...]] = {}
"""Choices that a key belongs to."""
for _name, _data in DATA_SETS.items():
    for _key in keys_of(_data).keys() - keys_of(DATA_SETS["digits"]).keys():
        NEEDED.setdefault(f"data.{_key}", (f"data={_name}",))
for _schedule, _keys in {"step": ("milestones",), "plateau": ("patience", "drops", "threshold")}.items():
    NEEDED |= {f"schedule.{key}": (f"schedule={_schedule}",) for key in _keys}
NEEDED |= {"schedule.gamma": ("schedule=step",), "optimizer.eps": ("optimizer=adamw",)}

WORDS = ["foo", "null", "true", "[1]", "[]", "{a: 1}", "1e400", "''", "nan", "'1'", "[a,b]", "-0.0", "é"]


@pytest.mark.slow
def test_random_words():
    """Values of other types: a key of a section, a text for a number, a list for a text."""
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    keys = sorted(
        {key for key, _ in walk(RunConfig)} | {f"data.{key}" for key, _ in walk(DATA_SETS["digits"])}
    )

    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    @hypothesis.given(st.sampled_from(keys), st.sampled_from(WORDS))
    def tried(key: str, word: str) -> None:
        line = answer(f"++{key}={word}")
        if line:
            assert "\n" not in line
            assert not LIBRARY.search(line), (key, word, line)

    tried()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("augment.scale=[0.1,1]", "augment.scale=[0.1, 1] has no effect here"),
        ("data.sampling.fold=1", "needs data.sampling.folds"),
        ("mixing.probability=0.5", "needs mixing.mixup"),
        ("ema.warmup=false", "needs ema.decay"),
        ("data.workers=2", "held in memory"),
        ("augment.crop=none augment.pad=3", "needs augment.crop=pad"),
        ("augment.cutout=16", "always covers"),
        ("schedule.warmup_epochs=30", "longer than trainer.max_epochs=20"),
        ("optimizer.weight_decay=0 optimizer.decay_norm_and_bias=true", "needs optimizer.weight_decay"),
        ("trainer.gradient_clip_algorithm=norm", "needs trainer.gradient_clip_val"),
        (
            "data=synthetic model=se_resnet50 model.dropout=1.5",
            "model.dropout=1.5 must be a number from 0 and",
        ),
        ("model.stride_on=3x3", "have it"),
        ("model.name=[1,2]", "model.name=[1, 2] must be a text"),
        ("data.name=[1]", 'data.name="[1]": there is no such data set'),
        ("optimizer=adamw optimizer.betas=[0.9]", "optimizer.betas=[0.9] must be a list"),
        ("data.sampling.sizes=[[1]]", "must be a list"),
        ("+data.size=3", 'did you mean "data.preprocessing.size"'),
        ("+ckpt_path=x", "resume=RUN_DIR"),
        ("trainer.enable_progress_bar=false", "decided by the run"),
        ("+experiment=cifar10_se_resnet20", "experiment=VALUE, once and without +"),
    ],
)
def test_one_line(overrides: str, words: str, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(ROOT / "train.py"), *overrides.split()])
    line = answer(*overrides.split())
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "overrides",
    ["", "augment.crop=none", "debug=overfit", "recipe=cifar", "schedule=step", "optimizer=lamb", "ema.decay=0.9",
     "data=imagefolder recipe=rsb_a2", "experiment=cifar10_se_resnet20",
     "schedule.warmup_epochs=2 data.sampling.sizes=[[0,8]] trainer.max_epochs=-1 trainer.max_steps=99"],
)  # fmt: skip
def test_defaults_and_recipes_are_not_the_users_doing(overrides: str):
    assert answer(*overrides.split()) == ""


def test_without_the_command_line(compose):
    """What was composed without a list of overrides is judged by the values that differ from our files'."""
    with pytest.raises(UserError, match=r"mixing\.probability"):
        entry.check_run({k: v for k, v in compose("mixing.probability=0.5").items() if k != "resume"})


def test_words_of_ranges():
    kinds = dict(walk(RunConfig))
    assert in_words(kinds["ema.decay"]) == "a number above 0 and below 1 or null"
    assert in_words(kinds["augment.flip"]) == "a number from 0 to 1"


@pytest.mark.slow
def test_what_is_accepted_trains_a_step(train):
    """A sample of random runs that were accepted is trained for one batch."""
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    everything = {
        key: kinds
        for key, kinds in numbers().items()
        if key.split(".")[0]
        in ("optimizer", "schedule", "mixing", "loss", "ema", "seed", "augment", "checkpoint")
    }
    values = st.one_of(st.integers(1, 9), st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))

    @hypothesis.settings(max_examples=EXAMPLES // 3, deadline=None, database=None, derandomize=True)
    @hypothesis.given(st.sampled_from(sorted(everything)), values)
    def tried(key: str, value: float) -> None:
        overrides = (*NEEDED.get(key, ()), f"++{key}={value}")
        if not answer(*overrides):
            train("debug=one_batch", "data.batch_size=8", *overrides)

    tried()
