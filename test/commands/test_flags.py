"""One thing has one name in every command that takes it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from toy_bundle import write_toy_bundle

from coop_perception.commands import demo, evaluate_bag


@pytest.mark.parametrize("command", [demo, evaluate_bag])
@pytest.mark.parametrize("flag", ["--topic", "--image-topic"])
def test_the_camera_topic(command: ModuleType, flag: str, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy")
    arguments = ["--bag", tmp_path / "none", "--bundle", bundle, "--out", tmp_path / "out", flag, "/front/image_raw"]
    with pytest.raises(SystemExit, match="there is no such recording"):  # and no usage
        command.main([str(argument) for argument in arguments])
