"""The site as it is built. `make docs` builds it in CI, by `--strict`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]+)"')


def test_searching_without_a_server_loads_our_script():
    pytest.importorskip("mkdocs", reason="pip install mkdocs-material")
    from website import hooks

    html = f'<script src="{hooks.SHIM}"></script>'
    for url, path in (("a.html", ""), ("methods/a.html", "../")):
        page = type("Page", (), {"url": url})
        expected = f'<script src="{path}assets/iframe-worker.js"></script>'
        assert hooks.on_post_page(html, page, {}) == expected


@pytest.mark.slow
def test_the_site_builds_and_stands_alone(tmp_path):
    pytest.importorskip("material", reason="pip install mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 80
    for path in pages:
        assert not LOADED.findall(path.read_text()), path
