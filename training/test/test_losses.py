"""Losses against values known by hand, and the feature networks they look through."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from coop_training.checkpoint import CheckpointError
from coop_training.config import LossesConfig
from coop_training.losses import (
    ADVERSARIAL,
    condition_loss,
    cross_entropy,
    gram,
    l1,
    log_mse,
    perceptual,
    soft_jaccard,
    style,
    total_variation,
)
from coop_training.losses.features import (
    PERCEPTUAL_LAYERS,
    STYLE_LAYERS,
    VGG19,
    describe_features,
    feature_extractor,
    load_vgg19,
    segmenter_features,
)
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from coop_perception.classes import IGNORE_ID


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_l1_of_a_constant_difference() -> None:
    assert l1(torch.full((1, 3, 4, 4), 0.75), torch.full((1, 3, 4, 4), 0.5)).item() == pytest.approx(0.25)


def ramp(across: float, down: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    return (across * columns + down * rows).expand(2, 3, 6, 9)


@pytest.mark.parametrize(("across", "down"), [(0.0, 0.0), (0.1, 0.0), (0.0, -0.1), (0.1, 0.1), (0.1, -0.1)])
def test_total_variation_of_ramps_is_the_sum_of_their_slopes(across: float, down: float) -> None:
    """Equation 9 as printed is zero on the diagonal ramp (0.1, 0.1)."""
    assert total_variation(ramp(across, down)).item() == pytest.approx(abs(across) + abs(down), abs=1e-6)


def test_a_coarse_label_asks_that_the_class_is_one_of_its_set() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    logits = probabilities.log().view(1, 3, 1, 1)
    coarse = torch.tensor([[False, True, True]])

    def loss(label: int) -> float:
        return float(cross_entropy(logits, torch.full((1, 1, 1), label), None, coarse).exp())

    assert loss(0) == pytest.approx(1 / 0.5)
    assert loss(3) == pytest.approx(1 / (0.3 + 0.2))


def test_pixels_of_coarse_labels_count_nowhere_in_the_jaccard_index() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.randint(0, 3, (1, 4, 4), generator=torch.Generator().manual_seed(1))
    half = mask.clone()
    half[:, 2:] = IGNORE_ID
    coarse = mask.clone()
    coarse[:, 2:] = 3
    torch.testing.assert_close(soft_jaccard(logits, coarse), soft_jaccard(logits, half))


def test_cross_entropy_ignores_unlabelled_pixels_and_weighs_classes() -> None:
    logits = torch.randn(1, 3, 4, 4)
    mask = torch.zeros(1, 4, 4, dtype=torch.long)
    mask[0, 1:3] = 2
    mask[0, 3] = 255
    log = logits.log_softmax(1)[0]
    expected = -(log[0, 0].sum() + 3 * log[2, 1:3].sum()) / (4 + 3 * 8)
    torch.testing.assert_close(cross_entropy(logits, mask, torch.tensor([1.0, 7.0, 3.0])), expected)


def test_lsgan_at_its_optima() -> None:
    lsgan, ones, zeros = ADVERSARIAL["lsgan"], torch.ones(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    assert lsgan.critic(ones, zeros) == 0
    assert lsgan.generator(ones) == 0
    assert lsgan.critic(zeros, ones) == 1
    assert lsgan.generator(zeros) == 0.5


def test_hinge_stops_at_its_margin_for_the_critic_only() -> None:
    hinge, two = ADVERSARIAL["hinge"], torch.full((2, 4, 3, 3), 2.0)
    assert hinge.critic(two, -two) == 0
    assert hinge.critic(torch.zeros(1), torch.zeros(1)) == 2
    assert hinge.generator(two) == -2


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_generator_and_critic_pull_the_fake_apart(kind: str) -> None:
    fake = torch.zeros(3, requires_grad=True)
    (up,) = torch.autograd.grad(ADVERSARIAL[kind].generator(fake), fake)
    (down,) = torch.autograd.grad(ADVERSARIAL[kind].critic(torch.ones(3), fake + 0.5), fake)
    assert (up < 0).all()
    assert (down > 0).all()


def test_gram_of_known_features() -> None:
    """Two channels on 1x2 pixels: (1, 2) and (3, -1); divided by C·H·W = 4."""
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    torch.testing.assert_close(gram(features), torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 4)


def test_style_does_not_see_where_things_are_and_perceptual_does() -> None:
    maps = torch.randn(1, 4, 6, 6)
    moved = maps.roll(2, -1)
    assert style([moved], [maps]) < 1e-6
    assert perceptual([moved], [maps]) > 0.1


def test_layers_add_up() -> None:
    maps = [torch.ones(1, 2, 4, 4), torch.ones(1, 3, 2, 2)]
    assert perceptual(maps, [torch.zeros_like(m) for m in maps]) == 2


def test_all_are_computed_in_float32_under_autocast() -> None:
    """Values that bfloat16 would round to zero difference."""
    maps = [1 + 1e-3 * torch.rand(1, 4, 8, 8)]
    other = [1 + 1e-3 * torch.rand(1, 4, 8, 8)]
    expected = perceptual(maps, other), style(maps, other)
    with torch.autocast("cpu", torch.bfloat16):
        found = perceptual(maps, other), style(maps, other)
    torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def vgg() -> VGG19:
    torch.manual_seed(0)
    network = VGG19()
    for parameter in network.parameters():
        # He initialisation, so that features neither vanish nor explode with depth.
        nn.init.kaiming_normal_(parameter) if parameter.ndim == 4 else nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture(scope="module")
def weights(vgg: VGG19, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As torchvision writes them, classifier and all."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({**vgg.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


def test_vgg19_is_torchvisions() -> None:
    """16 convolutions of 3x3, 20.02 million parameters (vgg19().features), under torchvision's indices."""
    state = VGG19().state_dict()
    indices = [int(name.split(".")[1]) for name in state if name.endswith("weight")]
    assert indices == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    assert all(name.startswith("features.") for name in state)
    assert sum(tensor.numel() for tensor in state.values()) == 20_024_384


def test_vgg19_from_a_file(vgg: VGG19, weights: Path, tmp_path: Path) -> None:
    save_file(vgg.state_dict(), tmp_path / "vgg19.safetensors")
    image = torch.rand(1, 3, 32, 48)
    expected = vgg(image)
    for path in (weights, tmp_path / "vgg19.safetensors"):
        loaded = load_vgg19(path)
        found = loaded(image)
        torch.testing.assert_close(found.perceptual, expected.perceptual, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.style, expected.style, rtol=1e-4, atol=1e-4)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_vgg19_maps(vgg: VGG19) -> None:
    """Before activation, at each block's size, and ImageNet's mean colour is zero to the first convolution."""
    maps = vgg(torch.rand(2, 3, 32, 48))
    shapes = [(2, width, 32 >> block, 48 >> block) for block, width in enumerate((64, 128, 256, 512, 512))]
    assert [tuple(m.shape) for m in maps.perceptual] == shapes
    assert [tuple(m.shape) for m in maps.style] == shapes[1:]
    assert len(PERCEPTUAL_LAYERS) == 5
    assert len(STYLE_LAYERS) == 4
    assert all((m < 0).any() for m in (*maps.perceptual, *maps.style))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    bias = vgg.features[0].bias
    assert isinstance(bias, torch.Tensor)
    torch.testing.assert_close(vgg(mean).perceptual[0], bias.view(1, -1, 1, 1).expand(1, 64, 32, 32))


def test_vgg19_lets_the_gradient_through_to_the_image(vgg: VGG19) -> None:
    clear = torch.rand(1, 3, 32, 32)
    restored = clear.clone().mul_(0.9).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        maps, real = vgg(restored), vgg(clear)
        assert maps.perceptual[0].dtype == torch.float32
        loss = perceptual(maps.perceptual, real.perceptual) + style(maps.style, real.style)
    (gradient,) = torch.autograd.grad(loss, restored)
    assert gradient.abs().min() > 0


def truncated(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save({"features.0.weight": state["features.0.weight"]}, path)
    path.write_bytes(path.read_bytes()[:1000])


def missing(_state: dict[str, torch.Tensor], _path: Path) -> None:
    pass


def text(_state: dict[str, torch.Tensor], path: Path) -> None:
    path.write_text("hello world\n" * 20)


def code(_state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(nn.Conv2d(3, 64, 3), path)


def not_a_dictionary(_state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save([1, 2], path)


def other_network(state: dict[str, torch.Tensor], path: Path) -> None:
    """VGG-16's indices part from VGG-19's at the third block."""
    torch.save({name: tensor for name, tensor in state.items() if int(name.split(".")[1]) < 16}, path)


def other_width(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save({**dict(list(state.items())[:4]), "features.5.weight": torch.zeros(64, 64, 3, 3)}, path)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (truncated, "cannot be read as VGG-19's weights"),
        (missing, "cannot be read as VGG-19's weights: FileNotFoundError"),
        (text, "cannot be read as VGG-19's weights"),
        (code, "cannot be read as VGG-19's weights: UnpicklingError"),
        (not_a_dictionary, "features.0.weight is missing"),
        (other_network, r"features.16.weight is missing, expected shape \(256, 256, 3, 3\)"),
        (other_width, r"features.5.weight is of shape \(64, 64, 3, 3\), expected shape \(128, 64, 3, 3\)"),
    ],
)
def test_files_that_are_not_vgg19(
    vgg: VGG19, tmp_path: Path, write: Callable[[dict[str, torch.Tensor], Path], None], says: str
) -> None:
    path = tmp_path / "vgg19.pth"
    write(vgg.state_dict(), path)
    with pytest.raises(CheckpointError, match=f"vgg19.pth: .*{says}"):
        load_vgg19(path)


def test_a_damaged_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "vgg19.safetensors"
    path.write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=r"vgg19\.safetensors: cannot be read"):
        load_vgg19(path)


class TwoScales(nn.Module):
    """Batch-normalised at full and half resolution, activated in place, then upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.third = nn.Sequential(nn.Conv2d(8, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.classify = nn.Conv2d(6, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classify(nn.functional.interpolate(self.third(self.second(self.first(image))), scale_factor=2))


def test_segmenter_features_are_its_first_map_of_each_resolution() -> None:
    segmenter = TwoScales().eval()
    image = torch.rand(2, 3, 8, 12, requires_grad=True)
    maps = segmenter_features(segmenter, image)
    assert [tuple(m.shape) for m in maps.perceptual] == [(2, 4, 8, 12), (2, 8, 4, 6)]
    assert all((m < 0).any() for m in maps.perceptual)  # before activation
    assert maps.style == ()
    (gradient,) = torch.autograd.grad(
        perceptual(maps.perceptual, [torch.zeros_like(m) for m in maps.perceptual]), image
    )
    assert gradient.abs().sum() > 0
    assert not any(module._forward_hooks for module in segmenter.modules())


def test_segmenter_features_without_batch_normalisation() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3, 2, 1))
    maps = segmenter_features(network, torch.rand(1, 3, 8, 8))
    assert [tuple(m.shape) for m in maps.perceptual] == [(1, 4, 8, 8), (1, 5, 4, 4)]


def test_the_record_says_what_the_features_are(weights: Path) -> None:
    assert feature_extractor(LossesConfig()) is None
    assert "no perceptual and no style term" in describe_features(LossesConfig())
    assert "segmenter: its encoder stands in for VGG-19" in describe_features(LossesConfig(features="segmenter"))
    config = LossesConfig(features="vgg19", vgg19_weights=weights)
    assert "vgg19.pth, sha256 " in describe_features(config)
    extract = feature_extractor(config)
    assert extract is not None
    assert len(extract(nn.Identity(), torch.rand(1, 3, 16, 16)).style) == 4


@pytest.mark.parametrize("fields", [{"features": "vgg19"}, {"vgg19_weights": "x.pth"}, {"tv": -1}])
def test_configurations_that_cannot_be(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LossesConfig.model_validate(fields)


@pytest.mark.parametrize("loss", [cross_entropy, soft_jaccard])
def test_what_nobody_labelled_teaches_nothing(loss: Callable[..., Tensor]) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((2, 8, 8), IGNORE_ID))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_soft_jaccard_is_the_batchs_iou_for_certain_logits() -> None:
    mask = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 255]]])
    guess = torch.tensor([[[0, 0, 0, 1], [0, 0, 1, 0]]])
    logits = 100.0 * torch.nn.functional.one_hot(guess, 3).permute(0, 3, 1, 2)
    # Class 0: 4 of 5; class 1: 2 of 3; class 2 is not there; the ignored pixel counts nowhere.
    torch.testing.assert_close(soft_jaccard(logits, mask), torch.tensor(1 - (4 / 5 + 2 / 3) / 2))


def test_log_mse_counts_equal_ratios_equally() -> None:
    clear = torch.zeros(2, 3, 4, 4)
    errors = torch.tensor([0.1, 0.2]).view(2, 1, 1, 1)
    gain = log_mse(clear + errors, clear) - log_mse(clear + errors / 2, clear)
    torch.testing.assert_close(gain, torch.tensor(4.0).log(), atol=0.02, rtol=0)


def test_cross_entropy_ignores_unlabelled_pixels() -> None:
    logits = torch.randn(1, 5, 4, 4)
    mask = torch.zeros(1, 4, 4, dtype=torch.long)
    mask[0, 0] = 255
    expected = -logits.log_softmax(1)[0, 0, 1:].mean()
    torch.testing.assert_close(cross_entropy(logits, mask), expected)


def test_condition_loss_vanishes_at_the_truth_and_asks_no_strength_of_what_is_not_there() -> None:
    truth = torch.tensor([[0.0, 0.7], [0.2, 0.5], [0.0, 0.0]])
    presence = torch.where(truth > 0, 50.0, -50.0)
    strength = torch.where(truth > 0, truth, 0.9)
    assert condition_loss(presence, strength, truth) < 1e-6
    assert condition_loss(presence, strength + 0.1, truth).item() == pytest.approx(0.1)
    assert condition_loss(-presence, strength, truth) > 10


def test_an_image_that_is_nearly_right_does_not_pull_at_the_others() -> None:
    """Steeper near no error at all, the loss forbids whatever might change a clear image a little: smoothing against
    noise was never learnt then."""

    def pull(error: float) -> float:
        restored = torch.full((1, 3, 8, 8), error, requires_grad=True)
        log_mse(restored, torch.zeros_like(restored)).backward()
        assert restored.grad is not None
        return float(restored.grad.norm())

    assert max(pull(error) for error in (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)) < 6 * pull(0.1)
