"""One step of every stage: which networks learn from what, with and without discriminators, in both variants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from coop_training.config import TrainConfig
from coop_training.data import Sample
from coop_training.guidance import (
    SMALLEST_SCALE,
    STRENGTH_ERROR,
    UNSURE_SHARE,
    WRONG_SHARE,
    image_of,
    label_shares,
    plausible_truth,
    rough_estimate,
    smooth_truth,
)
from coop_training.model import Cooperative
from coop_training.stages import Stage, stages
from coop_training.terms import Criteria, Losses, Term, weighted_sum
from torch import nn

CONDITIONS = ("fog", "gaussian_noise")
DEPLOYED = ("segmenter", "refinement", "restoration")
NAMES = (*DEPLOYED, "joint")
HEIGHT, WIDTH = 32, 64


def parameters(model: Cooperative, names: Sequence[str]) -> list[nn.Parameter]:
    return [parameter for name in names for parameter in model.parts()[name].parameters()]


def configuration(**fields: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {"name": "test", "conditions": CONDITIONS, "stages": {name: {"steps": 1} for name in NAMES}, **fields}
    )


def sample(count: int = 2) -> Sample:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    mask = torch.randint(0, 11, (count, HEIGHT, WIDTH), generator=generator)
    mask[:, :4] = 255
    conditions = F.one_hot(torch.arange(1, count + 1) % 3, 3)[:, 1:]
    return Sample(image, image.flip(-1), mask, conditions * torch.linspace(0.1, 1, count)[:, None])


def prepared(config: TrainConfig, name: str) -> tuple[Cooperative, Stage]:
    """A model as the training loop hands it to a stage, no weight of it zero."""
    torch.manual_seed(0)
    model = Cooperative(config)
    if config.variant == "fast":
        for part in (model.refinement, model.restoration):
            for parameter in part.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.05)
    stage = stages(config, torch.ones(11))[name]
    model.requires_grad_(False).eval()
    for part in (*stage.trained, *stage.critics):
        model.parts()[part].train().requires_grad_(True)
    return model, stage


def learning(model: Cooperative) -> set[str]:
    """Networks that the last backward pass left a gradient."""
    return {
        name
        for name, part in model.parts().items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    }


@pytest.mark.parametrize("variant", ["fast", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_every_stage(variant: str, name: str) -> None:
    model, stage = prepared(configuration(variant=variant), name)
    losses, fakes = stage.losses(model, sample())
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    losses["total"].backward()
    assert learning(model) == set(stage.trained)
    assert set(fakes) == set(stage.critics)
    for real, fake in fakes.values():
        assert real.shape == fake.shape
        assert not torch.cat([real, fake]).requires_grad

    if not stage.critics:
        return
    assert all(p.requires_grad for p in parameters(model, stage.critics))
    model.zero_grad()
    critic_losses = stage.critic_losses(model, fakes)
    assert set(critic_losses) == {"total", *stage.critics}
    critic_losses["total"].backward()
    assert learning(model) == set(stage.critics)


def test_stages_train_what_algorithm_1_says() -> None:
    trained = {name: (stage.trained, stage.critics) for name, stage in stages(configuration(), torch.ones(11)).items()}
    assert trained == {
        "segmenter": (("segmenter",), ()),
        "refinement": (("refinement",), ("d1",)),
        "restoration": (("restoration",), ("d2",)),
        "joint": (("refinement", "restoration"), ("d1", "d2")),
    }


def test_total_is_the_weighted_sum() -> None:
    weights = {"l1": 3.0, "adversarial": 0.5, "perceptual": 2.0, "tv": 0.25, "condition": 0.125}
    model, stage = prepared(configuration(losses={**weights, "features": "segmenter"}), "joint")
    losses, _ = stage.losses(model, sample())
    of = {"cross_entropy": 1.0, "adversarial_d1": 0.5, "adversarial_d2": 0.5, **weights}
    del of["adversarial"]
    assert set(losses) == {"total", *of}
    torch.testing.assert_close(losses["total"], sum_of(losses, of))


def sum_of(losses: Losses, weights: dict[str, float]) -> torch.Tensor:
    return torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()


def test_terms_of_weight_zero_are_left_out() -> None:
    config = configuration(losses={"adversarial": 0, "tv": 0, "perceptual": 0, "features": "segmenter"})
    assert set(Cooperative(config).parts()) == {*DEPLOYED, "calibration"}
    model, stage = prepared(config, "joint")
    losses, fakes = stage.losses(model, sample())
    assert set(losses) == {"total", "cross_entropy", "l1", "condition"}
    assert fakes == {}
    assert stage.critics == ()


def test_restoration_teaches_the_refinement_in_joint_training() -> None:
    model, stage = prepared(configuration(losses={"features": "segmenter"}), "joint")
    losses, _ = stage.losses(model, sample())
    for term in ("l1", "adversarial_d2", "perceptual"):
        model.zero_grad()
        losses[term].backward(retain_graph=True)
        assert learning(model) == {"refinement", "restoration"}, term


def test_discriminators_do_not_change_where_the_others_start() -> None:
    starts = []
    for adversarial in (0.0, 0.01):
        torch.manual_seed(0)
        starts.append(Cooperative(configuration(losses={"adversarial": adversarial})))
    for name, tensor in starts[0].state_dict().items():
        assert torch.equal(tensor, starts[1].state_dict()[name]), name
    assert set(starts[1].deployed()) == set(starts[0].parts())


@pytest.mark.parametrize(
    ("variant", "guidance"), [("fast", "gt"), ("fast", "refined"), ("fast", "mixed"), ("paper", "mixed")]
)
def test_guidance_of_the_restoration(variant: str, guidance: str) -> None:
    """What G2 is guided by, against S_gt, S_r computed apart, and nothing."""
    config = configuration(guidance=guidance, variant=variant, losses={"adversarial": 0})
    model, stage = prepared(config, "restoration")
    batch, seen = sample(6), set()
    truth = smooth_truth(batch.mask, label_shares(config.data.label_sets, 11), model.stride)
    uniform = torch.full_like(truth, 1 / 11)
    received: list[tuple[torch.Tensor, ...]] = []
    model.restoration.register_forward_pre_hook(lambda _module, inputs: received.append(inputs))
    for seed in range(6 if guidance == "mixed" else 1):
        torch.manual_seed(seed)
        stage.losses(model, batch)
        _, image, found, _ = received.pop()
        with torch.no_grad():
            logits = model.refinement(image, model.segmenter(image).softmax(1))[0]
            refined = F.interpolate(logits.softmax(1), size=truth.shape[-2:], mode="bilinear")
        for index in range(6):
            kinds = {"gt": truth, "refined": refined, "nothing": uniform}
            seen |= {name for name, one in kinds.items() if torch.allclose(found[index], one[index], atol=1e-5)}
    assert seen == ({"gt", "refined", "nothing"} if guidance == "mixed" else {guidance})


def test_the_scene_is_seen_at_the_frames_size_or_scaled_down() -> None:
    torch.manual_seed(0)
    frame = torch.rand(1, 3, 224, 320)
    sizes = [tuple(image_of(frame).shape[-2:]) for _ in range(200)]
    assert 0.4 < np.mean([size == (224, 320) for size in sizes]) < 0.7  # the largest scales are rounded to it, too
    assert {side % 32 for size in sizes for side in size} == {0}
    assert min(size[1] for size in sizes) == SMALLEST_SCALE * 320
    torch.testing.assert_close(image_of(frame).mean(), frame.mean(), atol=1e-2, rtol=0)


def test_estimates_in_training_are_roughly_the_truth_and_some_of_them_wrong() -> None:
    torch.manual_seed(0)
    strengths = torch.zeros(4000, 5)
    strengths[:, 1] = 0.5
    strengths[2000:, 3] = 0.9
    strengths[3000:] = 0
    there, found = strengths > 0, rough_estimate(strengths)
    off = torch.where(there, found.presence == 0, found.presence == 1)
    # Half of the wrong ones call another one present or absent; and the strongest is taken for another one.
    assert off.any(1).float().mean().item() == pytest.approx(WRONG_SHARE, abs=0.03)
    assert off[3000:].any()  # clear ones too
    assert (found.presence[there] < 1).float().mean().item() == pytest.approx(UNSURE_SHARE, abs=0.06)
    for probability in (0.3, 0.5, 0.7):  # what is unsure is there as often as it says
        near = (found.presence - probability).abs() < 0.1
        assert there[near].float().mean().item() == pytest.approx(probability, abs=0.06)
    errors = (found.strength - strengths)[there & (strengths < 0.8)]
    assert errors.std().item() == pytest.approx(STRENGTH_ERROR, rel=0.1)
    assert errors.mean().abs() < 0.01
    assert found.strength[~there].std() > 0.2  # which means nothing
    for values in (found.presence, found.strength):
        assert 0 <= values.min() < values.max() <= 1
    assert found.familiarity.tolist() == [1.0] * 4000


def test_truth_is_averaged_over_boxes_and_spread_where_it_is_not_known() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.long)
    mask[0, :4, :2] = 1
    mask[0, 4:, :4] = 3  # classes 1 or 2
    mask[0, 4:, 4:] = 255
    shares = label_shares([frozenset({0}), frozenset({1}), frozenset({2}), frozenset({1, 2})], 3)
    truth = smooth_truth(mask, shares, 4)
    assert truth[0, :, 0, 0].tolist() == [0.5, 0.5, 0]
    assert truth[0, :, 0, 1].tolist() == [1, 0, 0]
    assert truth[0, :, 1, 0].tolist() == [0, 0.5, 0.5]
    torch.testing.assert_close(truth[0, :, 1, 1], torch.full((3,), 1 / 3))


@pytest.mark.parametrize("kind", ["lsgan", "hinge"])
def test_a_critic_learns_to_tell_bright_from_dark(kind: str) -> None:
    model, stage = prepared(configuration(losses={"adversarial_kind": kind}), "restoration")
    bright = torch.full((2, 3, 32, 32), 0.9)
    optimizer = torch.optim.Adam(parameters(model, stage.critics), lr=1e-4, betas=(0.0, 0.9))
    totals = []
    for _ in range(20):
        total = stage.critic_losses(model, {"d2": (bright, 1 - bright)})["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]


def test_truth_as_d1_receives_it() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.long)
    mask[0, :2, 1] = 1
    mask[0, 2:, 2:] = 255
    refined = torch.tensor([0.25, 0.75]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    truth = plausible_truth(mask, refined)
    torch.testing.assert_close(truth.sum(1), torch.ones(1, 2, 2))
    torch.testing.assert_close(truth[0, :, 0, 1], 0.9 * torch.tensor([1.0, 0.0]) + 0.1 * torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(truth[0, :, 0, 0], 0.9 * torch.tensor([0.5, 0.5]) + 0.1 * torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(truth[0, :, 1, 1], torch.tensor([0.25, 0.75]))  # unlabelled: S_r itself


def test_terms_of_one_name_are_added() -> None:
    two, three = torch.tensor(2.0), torch.tensor(3.0)
    losses = weighted_sum([Term("a", 0.5, two), Term("b", 1.0, three), Term("a", 0.5, three)])
    assert {name: value.item() for name, value in losses.items()} == {"total": 5.5, "a": 5.0, "b": 3.0}


def test_class_weights_are_those_of_the_cross_entropy() -> None:
    config = configuration(losses={"jaccard": 0.5}).losses
    logits, mask = torch.zeros(1, 11, 2, 2), torch.tensor([[[0, 0], [0, 1]]])
    logits[:, 0] = 2.0
    weights = torch.ones(11)
    weights[1] = 9.0
    plain, weighted = (
        {term.name: term for term in Criteria(each, weights).segmentation(logits, mask)}
        for each in (config.model_copy(update={"class_weights": False}), config)
    )
    assert weighted["cross_entropy"].value > plain["cross_entropy"].value
    assert weighted["jaccard"].value == plain["jaccard"].value
    assert (weighted["cross_entropy"].weight, weighted["jaccard"].weight) == (1.0, 0.5)


def test_a_peer_without_conditions_learns_to_leave_clear_frames() -> None:
    """Its weights are trained on frames whose deployed restoration would leave them alone."""
    model, stage = prepared(configuration(variant="nafnet", guidance="none", losses={"adversarial": 0}), "restoration")
    clear = sample()
    losses, _ = stage.losses(model, Sample(clear.clear, clear.clear, clear.mask, torch.zeros(2, 2)))
    losses["total"].backward()
    assert learning(model) == {"restoration"}
