import pytest
import torch
import torch.nn.functional as F
from timm.loss import BinaryCrossEntropy
from torch import Tensor
from torchvision.transforms import v2

from senet.data import Batch, Preprocessing
from senet.data.inputs import InputStep
from senet.training.evaluation import figures, gather, predict
from senet.training.objective import LossConfig, MixConfig

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_smoothed_cross_entropy_equals_torchs():
    ours = LossConfig(label_smoothing=0.1)(LOGITS, LABELS)
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


def test_binary_cross_entropy_equals_timms():
    ours = LossConfig(name="bce", label_smoothing=0.1)(LOGITS, LABELS)
    torch.testing.assert_close(ours, BinaryCrossEntropy(smoothing=0.1)(LOGITS, LABELS))


@pytest.mark.parametrize(("config", "theirs"), [({"mixup": 0.8}, v2.MixUp), ({"cutmix": 0.8}, v2.CutMix)])
def test_mixing_equals_torchvisions(config: dict, theirs: type):
    images = torch.randint(0, 256, (6, 3, 9, 7), dtype=torch.uint8)
    pre = Preprocessing(size=7)
    for seed in range(5):
        torch.manual_seed(seed)
        mix = MixConfig(**config).draw(9, 7)
        assert mix is not None
        torch.manual_seed(seed)
        torch.rand(()), torch.randint(1, ())  # whether, and which
        expected, target = theirs(alpha=0.8, num_classes=5)(pre.normalise(images), LABELS)
        torch.testing.assert_close(InputStep(pre)(images, own=mix.own), expected)
        torch.testing.assert_close(mix.labels(LABELS, 5), target)


def test_either_kind_of_mixing_and_none_occur():
    kinds = [MixConfig(mixup=1.0, cutmix=1.0, probability=0.6).draw(16, 16) for _ in range(60)]
    mixes = [mix for mix in kinds if mix is not None]
    boxes = [mix for mix in mixes if set(mix.own.unique().tolist()) <= {0.0, 1.0}]
    assert 20 < len(mixes) < 50
    assert 5 < len(boxes) < len(mixes) - 5
    for config in (MixConfig(), MixConfig(mixup=1.0, probability=0.0)):
        assert config.draw(16, 16) is None
        assert not config.on


def test_impossible_values():
    with pytest.raises(ValueError, match="probability"):
        MixConfig(probability=2)
    with pytest.raises(ValueError, match="label_smoothing"):
        LossConfig(label_smoothing=1.0)


def batch(ids: Tensor, labels: Tensor) -> Batch:
    """A batch as the loader hands it over, without its images."""
    return Batch(torch.empty(0), labels, ids, torch.empty(0))


def test_figures_do_not_depend_on_the_batches():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(13, 10, generator=generator), torch.randint(10, (13,), generator=generator)
    ids = torch.arange(13)
    parts = [
        predict(logits[start : start + 4], batch(ids[start : start + 4], labels[start : start + 4]))
        for start in range(0, 13, 4)
    ]
    found = figures(gather(parts[::-1]), 13)
    assert found == figures(gather([predict(logits, batch(ids, labels))]), 13)
    assert found["top1"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    top5 = torch.tensor(
        [bool(label in row) for row, label in zip(logits.topk(5).indices, labels, strict=True)]
    )
    assert found["top5"] == pytest.approx(100 * top5.double().mean().item())
    assert found["loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
    unreadable = figures(gather(parts), 13 + 7)  # seven images more count as wrong, and for no loss
    assert unreadable["top1"] == pytest.approx(found["top1"] * 13 / 20)
    assert unreadable["loss"] == found["loss"]


def test_predictions_come_back_by_id():
    halves = [slice(3, 6), slice(0, 3)]
    columns = gather([predict(LOGITS[half], batch(torch.arange(6)[half], LABELS[half])) for half in halves])
    assert columns["ids"].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(columns["labels"], LABELS)
    assert torch.equal(columns["predicted"], LOGITS.argmax(1))
