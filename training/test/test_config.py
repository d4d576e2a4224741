"""Configurations: what is read, what is set over it, and what is said of one that cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from coop_training.config import ConfigError, LossesConfig, TrainConfig, load_config
from coop_training.mixtures import KINDS
from hypothesis import given, settings
from hypothesis import strategies as st

STREET = Path(__file__).parents[1] / "configs" / "street.yaml"
SHIPPED = [file for file in STREET.parent.glob("*.yaml") if file.stem != "own_data"]  # which reads the data's classes
PEERS = [file for file in (STREET.parent / "peers").iterdir() if file.stem != "classical"]  # which are filters'


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"stages": {}}, "stages: none is given"),
        ({"guidance": "truth"}, "guidance: Input should be .*, found 'truth'"),
        ({"learning_rate": 1}, "learning_rate: there is no such field"),
        ({"conditions": ["mist"]}, "conditions: .*'mist'.* known: .*fog"),
        ({"input": {"height": 90}}, "input.height: Input should be a multiple of 32"),
        ({"input": {"height": 96, "smallest": 128}}, "input: .*height is 96; give one from smallest, 128, to 2048"),
        (
            {"mixtures": True, "conditions": ["fog"]},
            "mixtures has conditions of its own, fog, .*: leave out",
        ),
        (
            {"conditions": ["fog"], "stages": {"refinement": {"steps": 1, "shares": {"rain": 1}}}, "start_from": "x"},
            r"stages.refinement.shares: \['rain'\] not among conditions \['fog'\]",
        ),
        (
            {"conditions": ["fog"], "stages": {"refinement": {"steps": 1, "shares": {"fog": 0}}}, "start_from": "x"},
            "stages.refinement.shares: all are 0",
        ),
        ({"input": {"sensor": 0}}, "input.sensor: Input should be greater than or equal to 32"),
        ({"refinement_from": "x"}, "refinement_from names one that is trained"),
        ({"data": {"validation_split": "val"}}, "data: .*validation_split is 'val', root None and split 'train'"),
    ],
)
def test_configurations_that_cannot_be(config_file: Path, edit: dict[str, object], says: str) -> None:
    config_file.write_text(yaml.safe_dump({**yaml.safe_load(config_file.read_text()), **edit}))
    with pytest.raises(ConfigError, match=f"smoke.yaml: .*{says}"):
        load_config(config_file)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\xff\xfe"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"broken\.yaml: "):
        load_config(path)


def test_fields_can_be_set_over_the_files(config_file: Path) -> None:
    overrides = [
        "stages.joint.steps=7",
        "conditions=[jpeg]",
        "data.crop=[32, 64]",
        "data.root=",
        "data.validation_split=",
        "ema=1e-1",
    ]
    config = load_config(config_file, [*overrides, "stages.joint.steps=8"])
    assert config.stages.joint.steps == 8  # the last one counts
    assert config.stages.segmenter.steps == 3
    assert config.conditions == ("jpeg",)
    assert config.data.crop == (32, 64)
    assert config.data.root is None
    assert config.ema == 0.1


def test_conditions_of_mixtures_are_all_its_kinds(config_file: Path) -> None:
    config = load_config(config_file, ["mixtures=true"])
    assert config.conditions == tuple(kind.name for kind in KINDS)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@settings(deadline=None, max_examples=25)
@given(name=st.text(), seed=st.integers(0, 2**63 - 1), clear=st.floats(0, 1))
def test_any_value_can_be_set(name: str, seed: int, clear: float) -> None:
    values = {"name": name, "seed": seed, "clear": clear}
    overrides = [f"{field}={yaml.safe_dump(value)}" for field, value in values.items()]
    config = load_config(STREET, overrides)
    assert {field: getattr(config, field) for field in values} == values


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stages.joint.steps", "--set stages.joint.steps: expected a field's dotted path"),
        ("=3", "--set =3: expected"),
        ("stages..steps=3", "expected a field's dotted path"),
        ("stages.joint.steps=[", "its value cannot be read as YAML"),
        ("name.first=x", "name is 'smoke', no section"),
        ("stages.joint.steps.more=1", "stages.joint.steps is 3, no section"),
        (
            "stages.joint.stps=3",
            "yaml with stages.joint.stps=3: stages.joint.stps: there is no such field",
        ),
        ("stages.joint.steps=few", "stages.joint.steps: Input should be a valid integer"),
        ("ema=1", "ema: Input should be less than 1, found 1"),
        (
            "stages.refinement=null",
            "stages.restoration is conditioned on the estimate of the refinement, which nothing trains",
        ),
        ("seed=-1", "seed: Input should be greater than or equal to 0, found -1"),
        ("data.first_seed=-1", "data.first_seed: Input should be greater than or equal to 0, found -1"),
    ],
)
def test_overrides_that_cannot_be(config_file: Path, override: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(config_file, [override])
    assert says in str(error.value)


@pytest.mark.parametrize("file", [*SHIPPED, *PEERS], ids=lambda file: file.stem)
def test_configurations_that_come_along_load(file: Path) -> None:
    assert load_config(file).name == file.stem


def test_documented_losses_are_those_of_the_configurations() -> None:
    """In the table's order, which is that of the equations, behind the cross-entropy."""
    terms = ("adversarial", "l1", "perceptual", "style", "tv", "jaccard", "log_mse", "condition")
    text = (STREET.parents[2] / "docs/training.md").read_text().partition("## Losses")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")][2:] for line in text.splitlines() if line[:2] == "| "]
    header, _, _, *documented = rows
    assert header == ["default", "street.yaml", "paper.yaml"]
    street, paper = (load_config(STREET.with_name(name)).losses for name in header[1:])
    for term, row in zip(terms, documented, strict=True):
        in_use = 0.0 if street.features == "none" and term in ("perceptual", "style") else getattr(street, term)
        found = [0.0 if cell == "–" else float(cell) for cell in row]
        assert found == [getattr(LossesConfig(), term), in_use, getattr(paper, term)], term


def test_the_command_looks_at_its_arguments_before_it_imports_what_takes_long() -> None:
    code = "import sys; from coop_training import train; print(*sorted({'torch', 'lightning_fabric'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
