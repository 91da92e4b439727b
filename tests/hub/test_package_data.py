"""Every file of hub/ that is not Python reaches the wheel (model2vec once shipped without its card template)."""

from __future__ import annotations

import configparser
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_templates_lists_and_the_space_are_package_data():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [pattern.strip() for pattern in config["options.package_data"]["langsamp.hub"].split(",")]
    hub = ROOT / "hub"
    found = [path.relative_to(hub).as_posix() for path in hub.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    data = [name for name in found if not name.endswith(".py") or "/" in name]
    assert {"card.md.jinja", "official_ids.json", "space/app.py", "space/README.md", "space/requirements.txt"} <= set(
        data
    )
    for name in data:
        matched = [p for p in patterns if fnmatch(name, p) and name.count("/") == p.count("/")]
        assert matched, f"hub/{name} would be missing from the wheel; add it to package_data in setup.cfg"
