"""Installs coop_perception: by colcon (ament_python), and by pip into a virtual environment."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "coop_perception"
SHARE = f"share/{NAME}"


def files(*patterns: str) -> list[str]:
    """Files that match `patterns`, relative to the repository's root; none is fine."""
    root = Path(__file__).resolve().parent
    return sorted(str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern) if path.is_file())


def shared(*patterns: str) -> list[tuple[str, list[str]]]:
    """Data files that keep their folder below share/coop_perception."""
    folders: dict[str, list[str]] = {}
    for file in files(*patterns):
        folders.setdefault(f"{SHARE}/{Path(file).parent}", []).append(file)
    return list(folders.items())


def requirements() -> list[str]:
    """What requirements/vehicle.in names, but for what only builds: one list for the locks and for pip."""
    lines = (Path(__file__).resolve().parent / "requirements/vehicle.in").read_text().splitlines()
    names = [line.partition("#")[0].strip() for line in lines]
    return [name for name in names if name and not name.startswith("setuptools")]


setup(
    name=NAME,
    version="0.2.0",
    description="Cooperative semantic segmentation and image restoration for vehicle cameras in adverse conditions.",
    maintainer="coop_perception maintainers",
    maintainer_email="maintainers@coop-perception.dev",
    license="Apache-2.0 AND CC-BY-NC-4.0",  # the latter: models/street
    license_files=["LICENSE", "LICENSES/*.txt", "REUSE.toml"],
    python_requires=">=3.10",
    install_requires=requirements(),  # not read by colcon, which leaves that to package.xml and rosdep
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "evaluation/report/*.j2"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *shared("launch/*.py", "config/**/*", "models/street/**/*"),
    ],
    entry_points={
        "console_scripts": [
            f"{script} = {NAME}.commands.{script}:main"
            for script in ("build_engines", "degrade_node", "demo", "evaluate_bag", "make_bag", "perception_node")
        ]
    },
    # test: by which colcon test knows how
    extras_require={"completion": ["argcomplete"], "ray": ["ray"], "test": ["pytest"]},
    zip_safe=False,
)
