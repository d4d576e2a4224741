"""Where installed files are: the default bundle and the configuration."""

from __future__ import annotations

from pathlib import Path


def share(relative: str) -> Path:
    """A file or folder of the package's share directory; in a source checkout, which has the same layout, of that."""
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "package.xml").is_file():
        return checkout / relative
    from ament_index_python import get_package_share_directory

    return Path(get_package_share_directory("coop_perception")) / relative


def default_bundle() -> Path:
    return share("models/street")
