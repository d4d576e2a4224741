"""What the package promises as a whole: one definition of each fact, no torch on the vehicle, complete commands."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import setuptools
from set_up_packages import SET_UP

from coop_perception.degrade import parameters as degrade_parameters
from coop_perception.exit_codes import NO_ROS, one_line
from coop_perception.node.parameters import PARAMETERS, parameters_table, parameters_yaml
from coop_perception.ros.definition import Definition, default_text

ROOT = Path(__file__).resolve().parent.parent
builds_wheels = pytest.mark.skipif(
    not SET_UP and tuple(map(int, setuptools.__version__.split(".")[:2])) < (70, 1),
    reason=f"setuptools {setuptools.__version__} builds no wheels by itself; 70.1, which make setup installs, does",
)
LICENCES = ("LICENSE", "LICENSES/Apache-2.0.txt", "LICENSES/CC-BY-NC-4.0.txt", "REUSE.toml")


def test_parameters_file_is_made_from_the_definitions() -> None:
    assert (ROOT / "config/pipeline.yaml").read_text() == parameters_yaml(), (
        "run: python tools/config_from_parameters.py > config/pipeline.yaml"
    )


def test_the_reference_has_the_parameters_table() -> None:
    assert parameters_table() in (ROOT / "docs/reference/parameters.md").read_text()


@pytest.mark.parametrize("definition", degrade_parameters.PARAMETERS, ids=lambda p: p.name)
def test_the_reference_has_the_degrade_nodes_parameters(definition: Definition) -> None:
    row = f"| `{definition.name}` | `{default_text(definition)}` | {definition.description} |\n"
    assert row in (ROOT / "docs/reference/parameters.md").read_text()


def test_the_reference_has_the_launch_arguments() -> None:
    """Their names in order, and the defaults of those that have a plain one."""
    declared = {}
    for node in ast.walk(ast.parse((ROOT / "launch/pipeline.launch.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "DeclareLaunchArgument":
            default = next(keyword.value for keyword in node.keywords if keyword.arg == "default_value")
            declared[node.args[0].value] = default.value if isinstance(default, ast.Constant) else None
    table = (ROOT / "docs/reference/launch.md").read_text().partition("| launch argument |")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| *(.*?) *\|", table, re.MULTILINE))
    assert list(rows) == list(declared)
    for name, default in declared.items():
        if default is not None:
            assert rows[name] == (f"`{default}`" if default else ""), name


def test_figures_of_the_readme_are_those_of_the_results() -> None:
    figures = (ROOT / "README.md").read_text().partition("## How good is it")[2].partition("\n\nFew frames")[0]
    results = (ROOT / "docs/results.md").read_text()
    rows = re.findall(r"^\| (?!:--|\|)(.+) \|$", figures, re.MULTILINE)
    assert 5 < len(rows) <= 10
    for row in rows:
        for number in re.findall(r"[+-]?\d+\.\d+", row):
            assert number in results, f"{number} in {row}"


def test_there_is_one_version() -> None:
    places = {
        "package.xml": r"<version>(.+)</version>",
        "coop_perception_msgs/package.xml": r"<version>(.+)</version>",
        "setup.py": r'version="(.+)"',
        "training/pyproject.toml": r'version = "(.+)"',
        "CITATION.cff": r"\nversion: (.+)",
        "CHANGELOG.md": r"\n## (.+)",
    }
    found = {file: re.search(pattern, (ROOT / file).read_text())[1] for file, pattern in places.items()}
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("definition", PARAMETERS, ids=lambda p: p.name)
def test_defaults_are_within_their_own_limits(definition: object) -> None:
    if definition.low is not None:
        assert definition.low <= definition.default <= definition.high
    if definition.choices:
        default = definition.default
        assert set(default if isinstance(default, tuple) else [default]) <= set(definition.choices)


def test_the_vehicle_never_imports_torch() -> None:
    """Every module of the vehicle's side, imported in a fresh process."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "coop_perception").rglob("*.py")
    ]
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    code += "assert not {'torch', 'coop_training'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_node_imports_with_the_module_names_of_humbles_rclpy() -> None:
    code = "import sys, rclpy.event_handler, rclpy.node; sys.modules['rclpy.qos_event'] = rclpy.event_handler; "
    code += "sys.modules['rclpy.event_handler'] = None; import coop_perception.node.lifecycle"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


COMMANDS = sorted(path.stem for path in (ROOT / "coop_perception/commands").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_help(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from coop_perception.commands.{command} import main; main()", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(f"usage: {command}")


@pytest.mark.parametrize("command", ["perception_node", "degrade_node"])
def test_nodes_say_that_ros_is_missing(command: str) -> None:
    code = "import sys, importlib.util as util; sys.modules['rclpy'] = None; "
    code += (
        "find = util.find_spec; util.find_spec = lambda name, *rest: None if name == 'rclpy' else find(name, *rest); "
    )
    code += f"from coop_perception.commands.{command} import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"{NO_ROS}\n"


def test_commands_say_that_ros_is_missing() -> None:
    with pytest.raises(SystemExit, match=r"^demo: .*rclpy is not there"), one_line("demo", (), ""):
        raise ModuleNotFoundError(name="rclpy.node")
    with pytest.raises(ModuleNotFoundError), one_line("demo", (), ""):
        raise ModuleNotFoundError(name="other")


@builds_wheels
def test_sdist_and_wheel_are_whole(tmp_path: Path) -> None:
    """Built as pip builds them, of a copy; the networks' files, which are large, are empty in it."""
    copy = tmp_path / "copy"
    ignore = shutil.ignore_patterns("__pycache__", "*.onnx")
    for name in ("coop_perception", "launch", "config", "models", "resource", "requirements", "LICENSES"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for network in (ROOT / "models/street").glob("*.onnx"):
        (copy / "models/street" / network.name).touch()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    code = (
        "from setuptools.build_meta import build_sdist, build_wheel; print(build_sdist('..')); print(build_wheel('..'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, timeout=120, check=True
    )
    sdist, wheel = (tmp_path / name for name in done.stdout.split() if name.endswith((".tar.gz", ".whl")))
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    files = [path for path in (copy / "coop_perception").rglob("*") if path.suffix in (".py", ".j2", ".typed")]
    code_files = {str(path.relative_to(copy)) for path in files}
    folders = [copy / name for name in ("launch", "config", "models")]
    shared = {str(path.relative_to(copy)) for folder in folders for path in folder.rglob("*") if path.is_file()}
    assert code_files - in_wheel == set()
    data = wheel.name.partition("-py3")[0] + ".data/data/share/coop_perception"
    assert {f"{data}/{name}" for name in (*shared, "package.xml")} - in_wheel == set()
    assert {Path(name).name for name in LICENCES} - {Path(n).name for n in in_wheel if ".dist-info/" in n} == set()
    assert {*code_files, *shared, "package.xml", "requirements/vehicle.in", *LICENCES} - in_sdist == set()


@builds_wheels
def test_the_trainings_wheel_has_its_licence_and_its_data(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "training", copy, ignore=shutil.ignore_patterns("__pycache__", "test", "*.egg-info"))
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, timeout=120, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        in_wheel = {re.sub(r".*\.dist-info/(licenses/)?", "", name) for name in archive.namelist()}
    files = [path for path in (copy / "coop_training").rglob("*") if path.suffix in (".py", ".yaml", ".typed")]
    assert {"LICENSE", *(str(path.relative_to(copy)) for path in files)} - in_wheel == set()


DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links and pictures; a heading's anchor as GitHub names it."""
    text = document.read_text()
    for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r' (?:src|href)="([^"]+)"', text)]:
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_each_page_is_in_the_sites_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    pages = [path.relative_to(ROOT / "docs") for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if not re.search(rf": {page}$", navigation, re.MULTILINE)] == []
