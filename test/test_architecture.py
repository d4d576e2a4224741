"""The rooms of docs/architecture.md, and that arrows between them point one way: read from the imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "coop_perception"
FLOORS = (
    ("commands",),
    ("evaluation", "node"),  # which do not know each other
    ("degrade",),
    ("launching",),
    ("ros",),
    ("recordings",),
    ("model",),
    ("engines",),
    ("degradations",),
    ("sample_scene",),
)
"""From the top down: a folder imports from floors below its own, and from the ground."""
GROUND = {
    "arguments",
    "camera",
    "classes",
    "contracts",
    "documents",
    "encoded_images",
    "exit_codes",
    "image_files",
    "image_headers",
    "images",
    "jpeg_bytes",
    "metrics",
    "png_bytes",
    "replacing",
    "resources",
    "shown",
    "topics",
    "views",
    "visualization",
}
ROS = (
    {"rclpy", "launch", "launch_ros", "rosidl_runtime_py", "ament_index_python", "coop_perception_msgs"}
    | {f"{name}_msgs" for name in ("builtin", "diagnostic", "lifecycle", "sensor", "std", "vision")}
    | {"builtin_interfaces", "rcl_interfaces"}
)
WITHOUT_ROS = ("recordings", "model", "engines", "degradations", "sample_scene")


def imports(file: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it, and names that it imports from one, the module's before them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(package: str, folder: Path) -> dict[str, set[str]]:
    """Of each module of a package the modules of that package that it imports, `package.` left out."""
    files = {".".join(file.relative_to(folder).with_suffix("").parts): file for file in folder.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): file for name, file in files.items() if name != "__init__"}

    def module(imported: str) -> str | None:
        name = imported.removeprefix(f"{package}.")
        return next((found for found in (name, name.rpartition(".")[0]) if found in modules), None)

    return {
        name: {found for one in imports(file) if one.startswith(f"{package}.") and (found := module(one))} - {name}
        for name, file in modules.items()
    }


def room(module: str) -> str:
    return module.partition(".")[0]


@pytest.fixture(scope="module")
def vehicle() -> Mapping[str, set[str]]:
    return graph(PACKAGE, ROOT / PACKAGE)


def test_every_file_is_in_a_room_or_on_the_ground(vehicle: Mapping[str, set[str]]) -> None:
    rooms = {one for floor in FLOORS for one in floor}
    assert {room(module) for module in vehicle} == rooms | GROUND
    assert {module for module in vehicle if "." not in module} - rooms == GROUND


def test_no_folder_imports_one_above_it(vehicle: Mapping[str, set[str]]) -> None:
    height = {one: len(FLOORS) - index for index, floor in enumerate(FLOORS) for one in floor}
    wrong = [
        f"{module} imports {other}"
        for module, others in vehicle.items()
        for other in others
        if room(module) != room(other) and height.get(room(module), 0) <= height.get(room(other), 0)
        if not (room(module) in GROUND and room(other) in GROUND)
    ]
    assert not wrong


@pytest.mark.parametrize(("package", "folder"), [(PACKAGE, ""), ("coop_training", "training")])
def test_no_circle_among_files(package: str, folder: str) -> None:
    found = graph(package, ROOT / folder / package)
    assert len(found) > 50
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


def test_the_vehicles_side_knows_nothing_of_training() -> None:
    for file in (ROOT / PACKAGE).rglob("*.py"):
        assert not {"torch", "coop_training"} & {room(name) for name in imports(file)}, file


@pytest.mark.parametrize("folder", WITHOUT_ROS)
def test_what_runs_without_ros(folder: str) -> None:
    for file in (ROOT / PACKAGE / folder).rglob("*.py"):
        assert not ROS & {room(name) for name in imports(file)}, file


def test_a_file_above_is_found(tmp_path: Path) -> None:
    """That the reading of imports sees those inside functions, of modules and of names."""
    for name, text in {
        "engines/one.py": "def late():\n    from coop_perception.node import worker",
        "engines/two.py": "import coop_perception.engines.one",
        "node/worker.py": "from coop_perception.engines.two import anything",
        "node/__init__.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert graph(PACKAGE, tmp_path) == {
        "engines.one": {"node.worker"},
        "engines.two": {"engines.one"},
        "node.worker": {"engines.two"},
        "node": set(),
    }


@pytest.mark.parametrize("folder", [PACKAGE, "training/coop_training"])
def test_yaml_and_json_from_outside_are_parsed_in_one_place(folder: str) -> None:
    """What is parsed elsewhere is the product's own: a template, a log, a record."""
    own = {"documents.py", "rviz.py", "record.py", "log.py", "journal.py"}
    for file in (ROOT / folder).rglob("*.py"):
        parses = re.search(r"yaml\.(safe_)?load|json\.loads?\(", file.read_text())
        assert file.name in own or not parses, file


@pytest.mark.parametrize("folder", [PACKAGE, "training/coop_training"])
def test_rich_obeys_nothing_that_comes_from_outside(folder: str) -> None:
    """A path with `[/b]` in it is no markup, and no error."""
    for file in (ROOT / folder).rglob("*.py"):
        made = re.findall(r"\bConsole\(([^()]*)\)", file.read_text())
        assert all("markup=False" in arguments for arguments in made), file
