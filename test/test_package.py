"""What the package promises as a whole: one definition of each fact, no torch on the vehicle, complete commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coop_perception.degrade import parameters as degrade_parameters
from coop_perception.node.parameters import PARAMETERS, parameters_table, parameters_yaml
from coop_perception.ros.definition import Definition, default_text

ROOT = Path(__file__).resolve().parent.parent


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
