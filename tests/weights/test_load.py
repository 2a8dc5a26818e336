"""``load_weights``: every form of specification, and what it refuses."""

import json
import logging
from dataclasses import dataclass, fields
from urllib.error import URLError

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn
from weight_fakes import same, small

from senet import SEConfig, UserError, create_model
from senet.data import Preprocessing
from senet.integrations.imagenet_names import wordnet_ids
from senet.models import Network
from senet.models.factory import rebuild
from senet.rundir import RunDir
from senet.weights import WeightRecord, load, load_weights
from senet.weights.checkpoint import newest_checkpoint
from senet.weights.classes import outputs_for
from senet.weights.trained import read_trained


@pytest.fixture
def online(monkeypatch) -> nn.Module:
    """Answer timm's download with a random network of the same name."""
    create = timm.create_model
    made: list[nn.Module] = []

    def download(name: str, pretrained: bool) -> nn.Module:
        assert pretrained
        made.append(create(name))
        return made[-1]

    monkeypatch.setattr(timm, "create_model", download)
    return made


def test_timm_weights_with_their_record(online):
    network = create_model("se_resnet18", branch_relu=True).eval()
    record = load_weights("timm:legacy_seresnet18.in1k", network)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), online[0].eval()(images), rtol=1e-4, atol=1e-5)
    assert record.source == "timm:legacy_seresnet18.in1k"
    # timm's own configuration of these weights.
    assert record.preprocessing == Preprocessing(224, 256, "bicubic")
    assert WeightRecord.from_dict(json.loads(json.dumps(record.to_dict()))).to_dict() == record.to_dict()


def test_timms_default_tag_is_named(online):
    network = create_model("resnet18", stem_pool="pad")
    record = load_weights("timm:resnet18", network)
    assert record.source == "timm:resnet18.a1_in1k"
    assert record.preprocessing.interpolation == "bicubic"
    assert record.preprocessing.resize == 235  # 224 / 0.95


def test_unknown_tags_and_names_get_a_hint():
    network = create_model("resnet18", stem_pool="pad")
    with pytest.raises(UserError, match=r'no weights "resnet18\.a1_in"; did you mean "resnet18\.a1_in1k"'):
        load_weights("timm:resnet18.a1_in", network)
    with pytest.raises(UserError, match=r"no converter for timm's \"vit_tiny\""):
        load_weights("timm:vit_tiny", network)
    with pytest.raises(UserError, match="timm released no weights of seresnet101"):
        load_weights("timm:seresnet101", network)
    with pytest.raises(UserError, match=r"did you mean \"ResNet18_Weights\.IMAGENET1K_V1\""):
        load_weights("torchvision:ResNet18_Weights.V1", network)


@pytest.mark.parametrize("spec", ["timm:resnet18.a1_in1k", "torchvision:ResNet18_Weights.IMAGENET1K_V1"])
def test_offline_is_one_clear_line(spec, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"could not be downloaded \(URLError\).*offline") as caught:
        load_weights(spec, create_model("resnet18", stem_pool="pad"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["timm:resnet18.tv_in1k", "torchvision:ResNet18_Weights.IMAGENET1K_V1"])
def test_a_file_damaged_in_a_cache_is_one_clear_line(spec, tmp_path, monkeypatch):
    """A copy into the cache that was cut off: torch.hub looks at no hash of what lies there."""
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), cached)
    cached.write_bytes(cached.read_bytes()[:5000])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: safetensors.torch.load_file(cached))
    with pytest.raises(UserError, match=r"cannot be had \(.*removed there") as caught:
        load_weights(spec, create_model("resnet18", stem_pool="pad"))
    assert "\n" not in str(caught.value)


def test_torchvision_weights_with_their_record(monkeypatch):
    theirs = torchvision.models.resnet50()

    def download(url: str, **options: object) -> dict[str, torch.Tensor]:
        assert options["weights_only"]
        return theirs.state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    network = create_model("resnet50", stem_pool="pad", stride_on="3x3")
    record = load_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2", network)
    assert record.preprocessing.resize == 232
    assert torch.equal(network.head.fc.weight, theirs.fc.weight)


def test_torchvisions_inception_normalises_inside_the_network(monkeypatch):
    theirs = torchvision.models.inception_v3(init_weights=False, transform_input=True).eval()
    monkeypatch.setattr(
        torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: theirs.state_dict()
    )
    network = create_model("inception_v3").eval()
    record = load_weights("torchvision:Inception_V3_Weights.IMAGENET1K_V1", network)
    pixels = torch.randint(0, 256, (1, 3, 107, 107), dtype=torch.uint8)
    with torch.no_grad():
        ours = network(record.preprocessing.normalise(pixels))
        expected = theirs(Preprocessing().normalise(pixels))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_state_dict_in_a_file(tmp_path, suffix):
    source, network, path = small(), small(), tmp_path / f"weights.{suffix}"
    save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    save(source.state_dict(), path)
    record = load_weights(str(path), network)
    assert same(source, network)
    assert record == WeightRecord(str(path), network.record)


def test_safetensors_with_a_record(tmp_path):
    source, path = small(se=SEConfig(reduction=4)), tmp_path / "weights.safetensors"
    record = WeightRecord("trained here", source.record, changes=("averaged",))
    metadata = {"senet": json.dumps(record.to_dict())}
    safetensors.torch.save_file(source.state_dict(), path, metadata)
    with pytest.raises(UserError, match=r"set se\.reduction=4"):
        load_weights(str(path), small())
    loaded = load_weights(str(path), small(se=SEConfig(reduction=4)))
    assert loaded.changes == ("averaged",)
    assert loaded.source == str(path)


def checkpoint(network: Network, averaged: Network | None, **record: object) -> dict[str, object]:
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    if averaged is not None:
        state |= {f"ema.module.{key}": value for key, value in averaged.state_dict().items()}
    return {"state_dict": state, "senet": {"model": network.record, "preprocessing": None, **record}}


def test_a_checkpoint_has_raw_and_averaged_weights(tmp_path):
    raw, averaged, path = small(), small(), tmp_path / "last.ckpt"
    torch.save(checkpoint(raw, averaged, selected_by="ema"), path)
    for which, source in (("raw", raw), ("ema", averaged), ("auto", averaged)):
        network = small()
        load_weights(str(path), network, which)
        assert same(network, source)
    torch.save(checkpoint(raw, None), path)
    with pytest.raises(UserError, match="has no averaged weights"):
        load_weights(str(path), small(), "ema")


def test_another_class_count_starts_the_classifier_anew(tmp_path, caplog):
    source, network, path = small(num_classes=7), small(num_classes=3), tmp_path / "last.ckpt"
    torch.save(checkpoint(source, None), path)
    with caplog.at_level(logging.INFO, logger="senet"):
        record = load_weights(str(path), network)
    assert [r.message for r in caplog.records] == [
        f"{path} has 7 classes and the data 3: the classifier starts anew"
    ]
    assert record.model["num_classes"] == 3
    assert record.changes == ("new classifier",)
    ours, theirs = network.state_dict(), source.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if not key.startswith("head.fc"))
    assert network.head.fc.weight.detach().std() == pytest.approx(0.01, rel=0.3)


REFUSED = [
    ("se_resnet18", {"stem_pool": "pad"}, {}, r"set model\.stem_pool=pad"),
    ("se_resnet18", {"branch_relu": True}, {}, r"set model\.branch_relu=True"),
    ("se_resnet50", {"stride_on": "3x3"}, {}, r"set model\.stride_on=3x3"),
    ("resnet18", {}, {}, "set model=resnet18"),
    ("se_resnet18", {"in_channels": 1}, {}, r"set data\.preprocessing\.colour"),
    (
        "se_resnet18",
        {},
        {"round_to": 8},
        r"needs an excitation of width 8 in SE_2_1.*has 4: set se\.round_to=8",
    ),
    ("se_resnet18", {}, {"reduction": 8}, r"set se\.reduction=8"),
    ("se_resnet18", {}, {"gate": "tanh"}, r"set se\.gate=tanh"),
    ("se_resnet18", {}, {"squeeze": "max"}, r"set se\.squeeze=max"),
    ("se_resnet18", {}, {"block": "eca"}, r"set se\.block=eca"),
    ("se_resnet18", {}, {"placement": "post"}, r"set se\.placement=post"),
    ("se_resnet18", {}, {"stages": (2, 3)}, r"set se\.stages=\(2, 3\)"),
    ("se_resnet18", {}, {"bias": False}, r"set se\.bias=False"),
]


@pytest.mark.parametrize(("name", "options", "se", "sentence"), REFUSED)
def test_another_architecture_is_refused_with_the_setting_to_change(tmp_path, name, options, se, sentence):
    path = tmp_path / "last.ckpt"
    needed = {"in_channels": 3, **options}
    torch.save(checkpoint(create_model(name, se=SEConfig(**se) if se else None, **needed), None), path)
    other = create_model("se_resnet50" if name == "se_resnet50" else "se_resnet18")
    with pytest.raises(UserError, match=sentence):
        load_weights(str(path), other)


def test_every_axis_of_the_se_block_is_compared(tmp_path, monkeypatch):
    """Also one that somebody adds, and forgets that there are weights."""

    @dataclass(frozen=True)
    class Extended(SEConfig):
        temperature: float = 1.0

    path = tmp_path / "last.ckpt"
    torch.save(checkpoint(small(se=Extended(temperature=2.0)), None), path)
    monkeypatch.setattr(load, "SEConfig", Extended)
    with pytest.raises(UserError, match=r"needs se\.temperature=2\.0, the network has 1\.0"):
        load_weights(str(path), small())
    load_weights(str(path), small(se=Extended(temperature=2.0)))
    assert {axis.name for axis in fields(SEConfig)} - set(load.BY_WIDTH) == {
        next(iter(se)) for _, _, se, _ in REFUSED if se
    } - set(load.BY_WIDTH)


def test_options_that_change_no_weight_may_differ(tmp_path):
    source, path = create_model("resnet18", dropout=0.3), tmp_path / "last.ckpt"
    torch.save(checkpoint(source, None), path)
    load_weights(str(path), create_model("resnet18"))
    all_stages = create_model("se_resnet18", se=SEConfig(stages=(2, 3, 4, 5)))
    torch.save(checkpoint(all_stages, None), path)
    load_weights(str(path), create_model("se_resnet18"))


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(UserError, match=r"there is no such file; weights are given as timm:NAME\.TAG"):
        load_weights("tim:resnet18", small())
    with pytest.raises(
        UserError, match=r'weights "https://host/w\.pt": download it first; weights are given as'
    ):
        load_weights("https://host/w.pt", small())
    path = tmp_path / "weights.pt"
    path.write_text("hello")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_weights(str(path), small())
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="neither a state dict nor a checkpoint"):
        load_weights(str(path), small())
    for text in ("nonsense", '{"a": 1}', "[1]", '{"source": "x", "model": {}, "preprocessing": {"a": 1}}'):
        safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors", {"senet": text})
        with pytest.raises(UserError, match="is not what senet writes"):
            load_weights(str(tmp_path / "w.safetensors"), small())
    lacking = WeightRecord("x", {"name": "resnet20", "num_classes": 10}).to_dict()
    safetensors.torch.save_file(
        {"x": torch.zeros(1)}, tmp_path / "w.safetensors", {"senet": json.dumps(lacking)}
    )
    with pytest.raises(
        UserError, match=r"is not what senet writes: its network has no in_channels, options, se$"
    ):
        load_weights(str(tmp_path / "w.safetensors"), small())
    (tmp_path / "w.safetensors").write_text("hello")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_weights(str(tmp_path / "w.safetensors"), small())
    torch.save(create_model("resnet20").state_dict(), path)
    with pytest.raises(UserError, match=r'lack "stages\.2\.0\.tail\.se\.excitation\.fc1\.weight"'):
        load_weights(str(path), small())


def test_a_trained_network_is_whole_and_known_by_its_content(tmp_path):
    source, path = small(num_classes=7), tmp_path / "w.safetensors"
    metadata = {"senet": json.dumps(WeightRecord("x", source.record, Preprocessing()).to_dict())}
    state = source.state_dict()
    safetensors.torch.save_file(state, path, metadata)
    assert same(read_trained(str(path)).network, source)
    safetensors.torch.save_file({key: state[key] for key in state if key != "head.fc.bias"}, path, metadata)
    with pytest.raises(UserError, match=r'lack "head\.fc\.bias"') as caught:
        read_trained(str(path))
    assert "\n" not in str(caught.value)
    images = {"preprocessing": Preprocessing().to_dict(), "classes": list("abcdefg"), "selected_by": "ema"}
    for name in ("last.ckpt", "copied.pt"):  # a checkpoint of ours, whatever it is called
        torch.save(checkpoint(small(num_classes=7), source, **images), tmp_path / name)
        trained = read_trained(str(tmp_path / name))
        assert same(trained.network, source)
        assert (trained.weights, trained.class_names()) == ("ema", list("abcdefg"))
        assert trained.checkpoint is not None


def test_an_axis_of_a_newer_senet_is_named():
    record = small().record
    newer = {**record, "se": {**record["se"], "temperature": 2.0}}
    for read in (rebuild, lambda record: load.check_architecture(small(), record, "FILE")):
        with pytest.raises(UserError, match=r"^se\.temperature is not known here: a newer senet wrote it"):
            read(newer)


def test_a_run_whose_last_checkpoint_was_removed_goes_on_from_the_one_before_it(tmp_path):
    """And does not start anew over what it has."""
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    assert newest_checkpoint(run) == (None, [])
    torch.save(checkpoint(small(), None), run.checkpoint("previous"))
    found, wrong = newest_checkpoint(run)
    assert found.path == run.checkpoint("previous")
    assert wrong == [f"{run.checkpoint('last')}: there is no such checkpoint"]


def test_a_class_called_by_a_sign_that_is_no_number_is_not_known():
    with pytest.raises(UserError, match='has the class "²", which w does not know'):
        outputs_for(["²"], wordnet_ids(), 1000, "w")
