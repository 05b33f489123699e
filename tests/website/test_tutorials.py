"""Tutorials: cells, what they printed, and notebooks."""

import json
import re

import pytest

from website import tutorials
from website.tutorials import KEPT, NAMES, NOTEBOOKS

SCRIPT = '''"""What one learns.

python examples/a.py
"""

# %%
x = 1

# %% [markdown]
# ## A heading
#
# - text
#   goes on

# %%
print(x + 1)
'''
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def test_cells_of_a_script():
    markdown = "## A heading\n\n- text\n  goes on"
    expected = [("code", "x = 1"), ("markdown", markdown), ("code", "print(x + 1)")]
    assert tutorials.cells(SCRIPT) == expected
    assert tutorials.title(SCRIPT) == "What one learns"
    assert tutorials.opening(SCRIPT) == "# What one learns\n\n`python examples/a.py`"


def test_a_run_keeps_what_each_cell_prints():
    printed, names = tutorials.run(SCRIPT)
    assert printed == ["", "2\n"]
    assert names["x"] == 1


def test_every_example_is_a_tutorial_that_ends_in_a_picture():
    assert {path.stem for path in tutorials.EXAMPLES.glob("*.py")} == set(NAMES)
    for name in NAMES:
        kind, last = tutorials.cells(tutorials.script(name))[-1]
        assert kind == "code"
        assert re.search(rf'^\w+\.savefig\("{name}\.png", .*\)$', last.split("\n")[-1])
        assert 5_000 < (KEPT / f"{name}.png").stat().st_size < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_each_cell_with_what_it_printed(name):
    page = tutorials.page(name)
    sources = [source for kind, source in tutorials.cells(tutorials.script(name))]
    assert page.count("```python") == len(tutorials.printed(name))
    for out in tutorials.printed(name):
        assert out.rstrip() in page
    assert sources[0] in page
    assert f"]({name}.png)" in page


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_that_of_its_script(name):
    """`python -m website.tutorials` writes it; jupytext reads the script."""
    pytest.importorskip("jupytext", reason="pip install jupytext")
    path = KEPT / f"{name}.ipynb"
    assert path.stat().st_size < 300_000
    assert path.read_text() == tutorials.stored(name)
    code = [
        c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"
    ]
    ours = [source for kind, source in tutorials.cells(tutorials.script(name))[1:]]
    assert "".join(code[2]["source"]) in ours  # by another parser of the same cells
    assert code[-1]["outputs"][-1]["data"]["image/png"].startswith("iVBOR")


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name):
    """From its first cell to its picture."""
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    import nbformat

    text = json.dumps(tutorials.notebook(name, outputs=False))
    notebook = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600).execute()
    shown = notebook.cells[-1].outputs
    assert any("image/png" in out.get("data", {}) for out in shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_what_a_run_prints(name, tmp_path, monkeypatch):
    """The same words, and numbers that another processor may round otherwise."""
    monkeypatch.chdir(tmp_path)
    printed, _ = tutorials.run(tutorials.script(name), name)
    now, kept = "\n".join(printed), "\n".join(tutorials.printed(name))
    assert NUMBER.sub("#", now) == NUMBER.sub("#", kept)
    numbers = (map(float, NUMBER.findall(text)) for text in (now, kept))
    for a, b in zip(*numbers, strict=True):
        assert a == pytest.approx(b, rel=0.3, abs=0.1)
    assert (tmp_path / f"{name}.png").exists()
