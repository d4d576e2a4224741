"""Where installed files are: the default bundle and the configuration."""

from __future__ import annotations

import sys
from pathlib import Path

NAME = "coop_perception"


def share(relative: str) -> Path:
    """A file or folder of the package's share directory: of the source checkout, which has the same layout, of the
    environment that pip installed it into, or of a ROS 2 workspace."""
    for folder in (Path(__file__).resolve().parent.parent, Path(sys.prefix, "share", NAME)):
        if (folder / "package.xml").is_file():
            return folder / relative
    from ament_index_python import get_package_share_directory

    return Path(get_package_share_directory(NAME)) / relative


def default_bundle() -> Path:
    return share("models/street")
