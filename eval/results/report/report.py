"""The report: one run directory in, one self-contained HTML page out, computed from records and nothing else.

    write_report(Path("runs/quickstart"), Path("report.html"))

The page needs no network and no library; sections appear when their records or side files (rundir.py) exist. The
same records give the same bytes.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from langsamp.core.files import atomic_write
from langsamp.core.plain import printable
from langsamp.core.record import FIELDS
from langsamp.eval.results import escape, rundir
from langsamp.eval.results.gather import Results
from langsamp.eval.results.report.extras import coverage_section, donor_sections, map_sections, training_section
from langsamp.eval.results.report.parts import kind
from langsamp.eval.results.report.summary import summary, verdict
from langsamp.eval.results.report.tasks import task_sections
from langsamp.unicode_scripts import valid_unicode

__all__ = ["Results", "render", "verdict", "write_report"]

TEMPLATE = "report.html.jinja"


def write_report(
    run_dir: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    title: str | None = None,
    baseline: str | None = None,
) -> Path:
    """Write the report of one or several run directories and return its path.

    Args:
        run_dir: folder(s) with results.jsonl (or with sub-folders that have one) of one or several models.
        output: the HTML file.
        title: heading; by default made of the models' names.
        baseline: the model to compare the others with (its name in the records or as shown); by default the first.

    Raises:
        FileNotFoundError: there are no records.
        ValueError: a file is malformed, or there is no such baseline.
    """
    return atomic_write(output, render(Results.of(rundir.load(run_dir), baseline), title))


def render(results: Results, title: str | None = None) -> str:
    """The text of the HTML page, without controls and halves of characters, whatever the names hold."""
    parts = (task_sections, donor_sections, map_sections, training_section, coverage_section)
    sections = [section for part in parts for section in part(results)]
    environment = Environment(
        loader=PackageLoader("langsamp.eval.results.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        title=title or results.title,
        results=results,
        models=[(kind(results, system), results.label(system), system.revision) for system in results.systems],
        summary=summary(results),
        sections=sections,
        records=_packed(results),
        style=Markup(_asset(environment, "report.css")),
        script=Markup(_asset(environment, "report.js")),
    )
    return printable(valid_unicode(page))


def _packed(results: Results) -> str:
    """All records as a CSV file, compressed and in base64: the page's button gives them back."""
    rows = (attrgetter(*FIELDS)(record) for record in results.run.records)
    return base64.b64encode(gzip.compress(escape.table(FIELDS, rows).encode(), 6, mtime=0)).decode()


def _asset(environment: Environment, name: str) -> str:
    """Our own file as it is: it is code, not text to escape."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
