"""The classical peers' settings in a YAML file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from coop_perception.degradations import CONDITIONS
from coop_perception.documents import DocumentError, read_yaml
from coop_training.peers.filters import PEERS
from coop_training.problems import problems


class SettingsError(ValueError):
    """A file of settings that cannot be used; the message names it."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    """Number of images that the settings were chosen on."""
    levels: dict[str, list[dict[str, float]]]
    """By condition, for each of its levels."""

    @field_validator("levels")
    @classmethod
    def _complete(cls, levels: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
        for name, peer in PEERS.items():
            expected = [set(peer.settings)] * len(CONDITIONS[name].levels)
            if [set(settings) for settings in levels.get(name, [])] != expected:
                raise ValueError(
                    f"{name}: expected {', '.join(peer.settings) or 'no settings ({})'} for each of its "
                    f"{len(expected)} levels; choose them anew with coop-peers-choose"
                )
        return levels


def read_settings(path: Path) -> Settings:
    """Read a file that `coop-peers-choose` wrote.

    Raises:
        SettingsError: the file is missing, or is none such.
    """
    try:
        return Settings.model_validate(read_yaml(path))
    except DocumentError as error:
        raise SettingsError(str(error)) from error
    except ValidationError as error:
        raise SettingsError(f"{path}: {problems(error)}") from error
