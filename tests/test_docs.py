"""What the documents say in Python runs, and what they point at is there."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tyro

import fssd_jax.__main__
from experiments.harness import cli
from fssd_jax.data import fetch, inventory
from fssd_jax.metrics import auroc
from website import measured

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


# A command in a line of code, indented or fenced, or in `…`; \\ goes on.
COMMAND = r"(?:taskset -c 0 )?(?:fssd|python(?= -m| examples)|make) (?:\\\n|[^`\n])+"
LINE = re.compile(rf"^(?:    )?({COMMAND})$", re.MULTILINE)
SPAN = re.compile(r"(?<!`)`((?:fssd|python|make) [^`]+)`")
PLACEHOLDER = re.compile(r"…|\.\.\.|\b(NAME|PATH|FILE)\b")


def commands():
    """Of all documents and of the tutorials' texts, each once."""
    found = {}
    history = ROOT / "CHANGELOG.md"
    for document in DOCUMENTS:
        if document != history:
            text = document.read_text()
            for command in [*LINE.findall(text), *SPAN.findall(text)]:
                found.setdefault(" ".join(command.replace("\\\n", " ").split()))
    for example in sorted((ROOT / "examples").glob("*.py")):
        text = re.sub(r"^# ?", "", example.read_text(), flags=re.MULTILINE)
        for command in LINE.findall(text):
            found.setdefault(" ".join(command.replace("\\\n", " ").split()))
    known = {row.name for row in measured.rows()}  # "fssd clean"
    return [c for c in found if not PLACEHOLDER.search(c) and c not in known]


def parsed(command):
    """Whether the command is there, and takes these options; it is not run."""
    program, *words = shlex.split(command.removeprefix("taskset -c 0 "), comments=True)
    if program == "fssd":
        if len(words) == 1 and words[0] != "--help":  # some options may be needed
            return words[0] in fssd_jax.__main__.menu()
        return fssd_jax.__main__.main(words) == 0
    if program == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M)
        return set(words) <= set(targets)
    if words[0] != "-m":
        return (ROOT / words[0]).is_file()
    _, module, *options = words
    if module == "fssd_jax":
        return fssd_jax.__main__.main(options) == 0
    if module.split(".")[0] in ("experiments", "benchmarks"):
        return import_module(module).main(options) == 0
    return ROOT.joinpath(*module.split(".")).with_suffix(".py").is_file()


def taken(command):
    try:
        return parsed(command)
    except SystemExit as left:
        return left.code == 0


@pytest.fixture
def nothing_is_run(monkeypatch):
    def parse(config_type, run, description, args, failed=None):
        tyro.cli(config_type, args=args)
        return 0

    monkeypatch.setattr(cli, "run_main", parse)
    monkeypatch.setattr(inventory, "_reports", lambda asked: 0)
    monkeypatch.setattr(fetch, "main", lambda names: 0)


def test_commands_are_there_and_take_these_options(nothing_is_run, capsys):
    found = commands()
    assert "fssd table2 --benchmark digits --seeds 0 1 2" in found
    assert "make quickstart" in " ".join(found)
    for command in found:
        assert taken(command), (command, capsys.readouterr().err)


def test_every_command_is_told_of():
    told = {words[1] for words in map(str.split, commands()) if words[0] == "fssd"}
    assert set(fssd_jax.__main__.menu()) <= told


@pytest.mark.parametrize(
    "command",
    [
        "fssd table2 --nothing",
        "fssd figure1000",
        "make nothing",
        "python examples/no.py",
    ],
)
def test_a_command_that_is_not_there_is_told(command, nothing_is_run):
    assert not taken(command)


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


def test_there_are_no_other_blocks():
    """What is run below is all Python that documents say."""
    run = [README, ROOT / "docs" / "using.md"]
    assert [d for d in DOCUMENTS if python_blocks(d)] == run


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
