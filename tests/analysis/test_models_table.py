"""The table of the zoo: no row missing, and a note exactly where print is not met."""

import json

import pytest

from senet import UserError, cli, model_names
from senet.analysis import zoo
from senet.analysis.paper import paper_figures
from senet.models import Cost


def test_every_network_and_every_published_cost_has_a_row(monkeypatch):
    monkeypatch.setattr(zoo, "count", lambda name, se, settings: (224, {"total": Cost(parameters=1)}))
    rows = zoo.zoo_rows()
    names = [row.name for row in rows]
    assert [name for name in names if " " not in name] == model_names()
    assert len(set(names)) == len(names)
    published = [f for f in paper_figures() if f.version == "v4" and f.model]
    for field in ("params_m", "gmacs"):
        printed = {(f.model, f.printed[field]) for f in published if field in f.printed}
        shown = {(row.name.split(" ")[0], getattr(row, f"paper_{field}")) for row in rows}
        assert printed <= shown


@pytest.mark.slow
def test_print_is_met_or_the_difference_explained():
    published = {figure.model for figure in paper_figures() if figure.gmacs or figure.params_m}
    rows = {row.name: row for row in zoo.zoo_rows(name for name in model_names() if name in published)}
    assert {row.name for row in rows.values() if row.note} == set(zoo.NOTES)
    for row in rows.values():
        assert (row.params_met() and row.gmacs_met()) == (not row.note), row
    met = {name for name, row in rows.items() if not row.note}
    assert met >= {"resnet50", "se_resnet50", "se_vgg16_bn", "bn_inception", "mobilenet", "se_mobilenet"}
    assert sum(name.startswith("se_resnet50 ") for name in met) == 9
    # Differences are ours minus print.
    values = {name: row.record() for name, row in rows.items()}
    assert values["resnet50"]["params_difference_m"] == -0.043
    assert values["inception_resnet_v2"]["gmacs_difference"] == pytest.approx(1.41, abs=0.01)
    assert values["resnet101"]["paper_params_m"] is values["resnet101"]["params_difference_m"] is None


def test_a_figure_off_by_one_digit_is_not_met():
    row = zoo.ZooRow("x", 224, Cost(parameters=28_088_024, macs=3_866_007_552), "28.1", "3.87")
    assert row.params_met()
    assert row.gmacs_met()
    assert not zoo.ZooRow("x", 224, row.cost, "28.2", "").params_met()
    assert not zoo.ZooRow("x", 224, row.cost, "28.0", "").params_met()
    assert not zoo.ZooRow("x", 224, row.cost, "", "3.86").gmacs_met()


def test_a_network_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match='did you mean "se_resnet50'):
        zoo.zoo_rows(["se_resnet500"])


def test_settings_and_size_are_counted(capsys):
    """Against the SE block's arithmetic: 2 C^2 / r weights, C / r + C biases; convolutions go by the area."""
    channels = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
    assert cli.main(["models", "se_resnet50", "se.reduction=8", "--size", "320", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["model"] == "se_resnet50 se.reduction=8"
    assert row["size"] == 320
    assert row["se_parameters"] == sum(2 * c * c // 8 + c // 8 + c for c in channels)
    assert row["paper_params_m"] is None  # which is of 224 px
    plain = {
        r.size: r.cost.macs
        for size in (224, 320)
        for r in zoo.zoo_rows(["resnet50"], zoo.Settings(size=size))
    }
    classifier = 2048 * 1000
    assert (plain[320] - classifier) * 224**2 == (plain[224] - classifier) * 320**2
    twin, printed = zoo.zoo_rows(["resnet50", "se_resnet50"], zoo.Settings(se={"reduction": 8}))
    assert (twin.paper_params_m, printed.paper_params_m) == ("25.6", "30.7")


def test_values_are_read_as_in_a_configuration():
    words = ["se.stages=[2,3]", "se.bias=false", "model.dropout=1e-1"]
    assert zoo.settings_of(words, 64) == zoo.Settings({"stages": [2, 3], "bias": False}, {"dropout": 0.1}, 64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet50", "se.reduction=8"], "has no SE block"),
        (["se_resnet50", "se.reductoin=8"], 'did you mean "reduction"'),
        (["se_resnet50", "se.reduction=0"], "integer of 1 or more"),
        (["se_resnet50", "se.block=eca", "se.reduction=16"], "means nothing to se.block=eca"),
        (["se_resnet50", "model.dropout=x"], "cannot be built with model.dropout=x"),
        (["se_resnet50", "trainer.devices=2"], "se.KEY=VALUE and model.KEY=VALUE"),
        (["se_inception_v3", "--size", "32"], "needs images of 75 pixels"),
        (["se_resnet50", "--size", "0"], "must be 1 or more"),
        (["se_resnet50", "se.stages=3"], "a list of stages, such as [2,3]"),
        (["se_resnet50", "se.stages=[2.5]"], "a list of stages, such as [2,3]"),
        (["se_resnet50", "se.bias=nope"], "must be true or false"),
        (["se_resnet50", "se.reduction=[1"], "cannot be read"),
        (["--stages"], "--stages goes with names"),
        (["se_resnet50", "--stages", "--format", "csv"], "--stages goes with names"),
    ],
)
def test_settings_that_cannot_be_are_one_line(words: list[str], message: str, capsys):
    assert cli.main(["models", *words]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert message in errors
