"""Pages of one file each: their templates, and what they may run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coop_perception.evaluation.report import figures


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("coop_perception.evaluation", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": figures.number, "text": figures.text}
    return environment


def render(template: str, script: str, **values: Any) -> bytes:
    """A page. Besides its own script it runs nothing, and it loads nothing: its policy says so to browsers.

    Args:
        template: its name.
        script: name of its script.
        values: what the template uses.
    """
    source = _environment().get_template(script).render()
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    page = _environment().get_template(template).render(script=Markup(source), policy=policy, **values)
    return page.encode()
