import pytest
import torch
import torch.nn.functional as F
from timm.loss import BinaryCrossEntropy

from senet import UserError
from senet.training.metrics import EvalSums, Predictions
from senet.training.objective import LossConfig, MixConfig

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_smoothed_cross_entropy_equals_torchs():
    ours = LossConfig(label_smoothing=0.1)(LOGITS, LABELS)
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


def test_binary_cross_entropy_equals_timms():
    ours = LossConfig(name="bce", label_smoothing=0.1)(LOGITS, LABELS)
    torch.testing.assert_close(ours, BinaryCrossEntropy(smoothing=0.1)(LOGITS, LABELS))


def test_mixing_blends_images_and_labels_alike():
    images = F.one_hot(LABELS, 5).float()[:, :, None, None].expand(-1, -1, 4, 4)
    torch.manual_seed(0)
    mixed, target = MixConfig(mixup=1.0)(images, LABELS, 5)
    torch.testing.assert_close(mixed[:, :, 0, 0], target)
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    cut, target = MixConfig(cutmix=1.0)(images, LABELS, 5)
    torch.testing.assert_close(cut.mean((2, 3)), target)  # the share of pixels is the share of the label


def test_no_mixing_changes_nothing():
    images = torch.rand(6, 3, 4, 4)
    for config in (MixConfig(), MixConfig(mixup=1.0, probability=0.0)):
        mixed, target = config(images, LABELS, 5)
        assert mixed is images
        assert target is LABELS
        assert not config.on


def test_impossible_values():
    with pytest.raises(UserError, match="probability"):
        MixConfig(probability=2)
    with pytest.raises(UserError, match="label_smoothing"):
        LossConfig(label_smoothing=1.0)


def test_sums_do_not_depend_on_the_batches():
    whole, parts = EvalSums(torch.device("cpu")), EvalSums(torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(13, 10, generator=generator), torch.randint(10, (13,), generator=generator)
    whole.update(logits, labels)
    for start in range(0, 13, 4):
        parts.update(logits[start : start + 4], labels[start : start + 4])
    assert whole.compute() == pytest.approx(parts.compute())
    figures = whole.compute()
    assert figures["count"] == 13
    assert figures["top1"] == pytest.approx(100 * (logits.argmax(1) == labels).double().mean().item())
    top5 = torch.tensor(
        [bool(label in row) for row, label in zip(logits.topk(5).indices, labels, strict=True)]
    )
    assert figures["top5"] == pytest.approx(100 * top5.double().mean().item())
    assert figures["loss"] == pytest.approx(F.cross_entropy(logits, labels).item())


def test_predictions_come_back_by_id():
    predictions = Predictions()
    predictions.update(LOGITS[3:], LABELS[3:], torch.tensor([3, 4, 5]))
    predictions.update(LOGITS[:3], LABELS[:3], torch.tensor([0, 1, 2]))
    columns = predictions.gather()
    assert columns["ids"].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(columns["predicted"], LOGITS.argmax(1))
