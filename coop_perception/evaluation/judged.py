"""What continuous integration gets of a run: a verdict, JUnit XML, a Markdown summary."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from coop_perception.evaluation.gate import Gate, GateSyntaxError, Verdict, failures, judge, parse
from coop_perception.exit_codes import GateError
from coop_perception.replacing import write_whole
from coop_perception.shown import plain

_LONGEST = 300


def hold(
    gates: Sequence[Gate], measures: Mapping[str, Any], name: str, junit: Path | None, markdown: Path | None, rows: str
) -> None:
    """Judge results, write what is to be written, and end badly where a gate fails.

    Args:
        gates: what was asked for.
        measures: the scores, or a comparison's differences.
        name: of the run.
        junit: file of a test case per gate.
        markdown: file of a summary; what it held stays before it, as in GitHub's step summary.
        rows: of the Markdown table of scores.

    Raises:
        GateError: a gate fails.
        OSError: a file cannot be written.
    """
    verdicts = [judge(gate, measures) for gate in gates]
    if junit is not None:
        junit.parent.mkdir(parents=True, exist_ok=True)
        write_whole(junit, junit_xml(verdicts, name))
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        with markdown.open("a", encoding="utf-8") as file:
            file.write(markdown_summary(verdicts, name, rows))
    for verdict in verdicts:
        print(f"{'FAILED' if verdict.failed else 'passed'}: {plain(verdict.gate)} ({plain(verdict.reason)})")
    failed = failures(verdicts)
    if failed:
        raise GateError(f"{len(failed)} of {len(verdicts)} gates failed: {'; '.join(failed)}")


def junit_xml(verdicts: Sequence[Verdict], name: str) -> bytes:
    """One suite of one test case per gate."""
    failed = sum(verdict.failed for verdict in verdicts)
    suite = ElementTree.Element(
        "testsuite", name=_text(f"evaluate_bag {name}"), tests=str(len(verdicts)), failures=str(failed), errors="0"
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_text(name), name=_text(f"not {verdict.gate}"), time="0"
        )
        if verdict.failed:
            ElementTree.SubElement(case, "failure", message=_text(verdict.reason)).text = _text(verdict.reason)
        else:
            ElementTree.SubElement(case, "system-out").text = _text(verdict.reason)
    suites = ElementTree.Element("testsuites", tests=str(len(verdicts)), failures=str(failed))
    suites.append(suite)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def markdown_summary(verdicts: Sequence[Verdict], name: str, rows: str) -> str:
    """A heading, the gates, the scores."""
    lines = [f"## evaluate_bag: {cell(name)}", ""]
    if verdicts:
        lines += ["| fails if | | found |", "| --- | --- | --- |"]
        lines += [
            f"| {cell(verdict.gate)} | {'**failed**' if verdict.failed else 'passed'} | {cell(verdict.reason)} |"
            for verdict in verdicts
        ]
        lines.append("")
    return "\n".join([*lines, rows, ""])


def cell(text: object) -> str:
    """A text in a Markdown table: nothing in it is markup."""
    words = plain(text, _LONGEST)
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#+!|~" else c for c in words)


def score_rows(summary: Mapping[str, Any]) -> str:
    """The scores of a run over all frames, as a Markdown table."""
    lines = ["| score | | 95 % interval |", "| --- | ---: | --- |"]
    for name, score in _named(summary["measures"]).items():
        if score["value"] is not None:
            known = score["low"] is not None
            lines.append(
                f"| {cell(name)} | {score['value']:.4g} | {score['low']:.4g} to {score['high']:.4g} |"
                if known
                else f"| {cell(name)} | {score['value']:.4g} | |"
            )
    return "\n".join(lines)


def difference_rows(compared: Mapping[str, Any]) -> str:
    """The differences of two runs over all frames, as a Markdown table."""
    lines = ["| score | first | second | difference | 95 % interval |", "| --- | ---: | ---: | ---: | --- |"]
    for name, one in _named(compared["measures"]).items():
        spread = "" if one["low"] is None else f"{one['low']:+.4g} to {one['high']:+.4g}"
        lines.append(f"| {cell(name)} | {one['first']:.4g} | {one['second']:.4g} | {one['value']:+.4g} | {spread} |")
    return "\n".join(lines)


def _named(measures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The scores over all frames and those of each condition's estimate, by the names that gates have for them."""
    of_conditions = {
        f"{name}.{condition}": score
        for condition, scores in measures.get("estimate", {}).items()
        for name, score in scores.items()
    }
    return {name: score for name, score in measures["all"].items() if isinstance(score, Mapping)} | of_conditions


def _text(text: str) -> str:
    return plain(text, _LONGEST)


def add_gate_options(parser: argparse.ArgumentParser, comparing: bool = False) -> None:
    """Add --fail-if, --junit and --markdown. `comparing`: gates are of what changed."""

    def gate(text: str) -> Gate:
        try:
            return parse(text, comparing)
        except GateSyntaxError as error:
            raise argparse.ArgumentTypeError(str(error).replace("%", "%%")) from error

    example = "'miou.drop > 0.01 significant'" if comparing else "'psnr_gain.fog < 5'"
    gates = parser.add_argument_group("gates").add_argument
    gates(
        "--fail-if",
        action="append",
        default=[],
        type=gate,
        metavar="EXPR",
        help=f"end with status 3 if this holds, such as {example}; may be given several times",
    )
    gates("--junit", type=Path, metavar="FILE", help="write the gates as JUnit XML")
    gates("--markdown", type=Path, metavar="FILE", help="add a summary to this file ($GITHUB_STEP_SUMMARY, say)")
