"""One step of every stage: which networks learn from what, with and without discriminators, in both variants."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from coop_training import guidance as guidance_module
from coop_training.config import TrainConfig
from coop_training.data import Sample
from coop_training.guidance import LEAST_STRENGTH_ERROR, STRENGTH_ERRORS, plausible_truth, smooth_one_hot, to_image
from coop_training.model import Cooperative
from coop_training.stages import Stage, stages
from coop_training.terms import Criteria, Losses, Term, weighted_sum
from torch import nn

CONDITIONS = ("fog", "gaussian_noise")
NAMES = ("segmenter", "refinement", "restoration", "joint")
HEIGHT, WIDTH = 32, 48


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
    conditions = F.one_hot(torch.arange(count) % 3, 3)[:, 1:]
    return Sample(image, image.flip(-1), mask, conditions * torch.linspace(0.1, 1, count)[:, None])


def prepared(config: TrainConfig, name: str) -> tuple[Cooperative, Stage]:
    """A model as the training loop hands it to a stage, no weight of it zero."""
    torch.manual_seed(0)
    model = Cooperative(config)
    if config.variant == "fast":
        for part in (model.refinement, model.restoration):
            for parameter in part.parameters():
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
    assert set(Cooperative(config).parts()) == {"segmenter", "refinement", "restoration"}
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
def test_guidance_of_the_restoration(variant: str, guidance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What G2 is conditioned on, against S_gt and the truth, S_r and the estimate computed apart."""
    monkeypatch.setattr(guidance_module, "STRENGTH_ERRORS", dict.fromkeys(("clear", *CONDITIONS), 0.0))
    model, stage = prepared(configuration(guidance=guidance, variant=variant, losses={"adversarial": 0}), "restoration")
    batch, received = sample(), []
    model.restoration.register_forward_pre_hook(lambda _module, inputs: received.append(inputs))
    for seed in range(40):
        torch.manual_seed(seed)
        stage.losses(model, batch)
    degraded = received[0][0]
    with torch.no_grad():
        refined, estimated = model.refine(degraded, model.segmenter(degraded).softmax(1))
    of_scene = smooth_one_hot(batch.mask, 11, HEIGHT // model.stride), refined
    of_condition = (
        torch.cat([torch.eye(3)[batch.condition], batch.strength[:, None]], 1),
        torch.cat([estimated.posterior, estimated.strength[:, None]], 1),
    )
    both = {(a, b) for a in ("gt", "refined") for b in ("gt", "refined")}
    of_guidance = [sources(found, *of_scene) for _, found, *_ in received]
    assert set(of_guidance) == (both if guidance == "mixed" else {(guidance, guidance)})
    if variant == "fast":
        estimates = [torch.cat([estimate.posterior, estimate.strength[:, None]], 1) for _, _, estimate in received]
        assert [sources(found, *of_condition) for found in estimates] == of_guidance  # both are known, or neither


def test_strengths_of_mixed_guidance_are_as_far_off_as_estimates_are() -> None:
    model, stage = prepared(configuration(guidance="mixed", losses={"adversarial": 0}), "restoration")
    batch, received = sample(6), []
    model.restoration.register_forward_pre_hook(lambda _module, inputs: received.append(inputs[2]))
    for seed in range(40):
        torch.manual_seed(seed)
        stage.losses(model, batch)
    known = [estimate.strength for estimate in received if estimate.posterior.max(1).values.min() == 1]
    errors = torch.stack(known) - batch.strength
    assert not errors[:, batch.condition == 0].any()
    for condition, error in ((1, STRENGTH_ERRORS["fog"]), (2, LEAST_STRENGTH_ERROR)):
        # Those at the ends of 0..1 are held there.
        assert 0.5 < errors[:, batch.condition == condition].std() / error < 1.5
    assert all(0 <= strength <= 1 for strength in torch.cat(known).tolist())


def sources(found: torch.Tensor, true: torch.Tensor, refined: torch.Tensor) -> tuple[str, ...]:
    """Of each of a batch, which of the two it is."""
    return tuple(
        "gt" if torch.allclose(one, a) else "refined" if torch.allclose(one, b, atol=1e-5) else "neither"
        for one, a, b in zip(found, true, refined, strict=True)
    )


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


def test_terms_of_the_restoration_by_themselves() -> None:
    """Under an estimate that is given and one that the refinement makes, which are the same where they agree."""
    model, _ = prepared(configuration(losses={"tv": 0.25, "log_mse": 0.1}), "restoration")
    criteria = Criteria(configuration(losses={"tv": 0.25, "log_mse": 0.1}).losses, torch.ones(11))
    batch = sample()
    degraded = to_image(batch.degraded)
    refined, estimate = model.refine(degraded, model.segmenter(degraded).softmax(1))
    own, fakes = criteria.restoration(model, batch, degraded, refined)
    given, _ = criteria.restoration(model, batch, degraded, refined, estimate)
    assert [term.name for term in own] == ["l1", "condition", "log_mse", "tv", "adversarial_d2"]
    assert set(fakes) == {"d2"}
    for one, other in zip(own, given, strict=True):
        torch.testing.assert_close(one.value, other.value)
