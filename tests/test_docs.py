"""What the documents say in Python runs, and what they point at is there."""

import re
from pathlib import Path

import pytest

from fssd_jax.metrics import auroc

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [
    *(README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# [text](target), and the target of a picture; not a page of the web.
LINK = re.compile(r"\]\(\s*(?!https?:)([^)\s]+)\s*\)")


def python_blocks(document):
    return re.findall(
        r"^```python\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL
    )


def anchors(document):
    """What GitHub makes of each heading: lower case, words, hyphens for spaces."""
    headings = re.findall(
        r"^#+ (.*)$", BLOCK.sub("", document.read_text()), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 130


def test_the_readme_has_one_short_table():
    rows = [line for line in README.read_text().splitlines() if line.startswith("|")]
    assert len(rows) <= 2 + 8


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_point_at_what_is_there(document):
    for link in LINK.findall(BLOCK.sub("", document.read_text())):
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), f"{document.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{document.name}: {link}"


def test_every_document_is_linked_from_the_readme():
    linked = {link.partition("#")[0] for link in LINK.findall(README.read_text())}
    written = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert written <= linked


def test_the_blocks_run_when_pasted(tmp_path, monkeypatch, capsys):
    """README's alone in a fresh namespace, then those of docs/using.md after it."""
    monkeypatch.chdir(tmp_path)
    pasted = {"__name__": "pasted"}
    (own_network,) = python_blocks(README)
    exec(compile(own_network, "README.md", "exec"), pasted)
    assert auroc(pasted["scores"], pasted["of_photos"]) > 0.9
    assert float(capsys.readouterr().out) > 0.9
    for block in python_blocks(ROOT / "docs" / "using.md"):
        exec(compile(block, "docs/using.md", "exec"), pasted)
    assert pasted["fitted"].config["threshold"] == pasted["chosen"].value
    assert pasted["accepted"].mean() > 0.85
    assert list(pasted["path"].error()) == ["fc1", "logits"]
    steps = [record.step for record in pasted["kernels"].records]
    assert steps == [record.step for record in pasted["recorder"].records]
    assert pasted["kernels"].records[-1].statistics["logits"].drift > 0
    forms = {"hidden": "bottleneck", "logits": "bottleneck"}
    assert pasted["frozen"].forms == forms
