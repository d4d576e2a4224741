"""Where the node takes bundles from: whoever can call its services names a folder, the operator says which may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coop_perception.model.bundle import MANIFEST, BundleError
from coop_perception.resources import default_bundle
from coop_perception.shown import plain


class BundleRoots:
    """The folders below which bundles are taken.

    Args:
        roots: the node's parameter `bundle_roots`.
        started_with: its parameter `bundle` when it started; empty: the installed one.
    """

    def __init__(self, roots: Sequence[str], started_with: str) -> None:
        named = [Path(root) for root in roots if root]
        self._roots = named or [default_bundle().parent]
        self._always = Path(started_with or default_bundle())

    def resolved(self, directory: Path) -> Path:
        """The bundle's directory, without links.

        Raises:
            BundleError: it lies elsewhere, or its manifest does.
        """
        try:
            found = directory.resolve()
            here = _place(directory)
            allowed = here == _place(self._always) or any(_is_below(directory, root) for root in self._roots)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: a null
            raise BundleError(f"{plain(directory)}: cannot be found: {plain(error, 200)}") from error
        if not allowed:
            raise BundleError(
                f"{directory}: is in none of the folders that bundles are loaded from "
                f"({', '.join(map(str, self._roots))}); start the node with it in bundle_roots"
            )
        return found


def _place(directory: Path) -> tuple[Path, Path]:
    """Where a bundle and its manifest really are: an installation may link to a checkout's."""
    return directory.resolve(), (directory / MANIFEST).resolve()


def _is_below(directory: Path, root: Path) -> bool:
    """A manifest that is a link must lead below the same root; those of the installed bundles lead where the installed
    default one does."""
    places = [root.resolve()]
    if places[0] == default_bundle().parent.resolve():
        places.append((default_bundle() / MANIFEST).resolve().parent.parent)
    found, manifest = _place(directory)
    return any(found.is_relative_to(place) for place in places) and any(manifest.is_relative_to(p) for p in places)
