"""Documents as pages: sections of others put in, and links to what is not in docs/.

A line `<!-- include --> [text](FILE.md#section)` is the section itself on the site.
"""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

from website.measured import ROOT

INCLUDE = re.compile(r"^<!-- include --> \[[^\]]*\]\(([^)#]+)#([^)]+)\)$", re.MULTILINE)
# Code is left alone; group 1 is the target of a link, or of a picture.
LINK = re.compile(
    r"^```.*?^```$|`[^`\n]+`|\]\(\s*(?!https?:|#)([^)\s]+)\s*\)",
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """What GitHub and this site make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def section(text: str, name: str) -> str:
    """From the heading with this anchor to the next heading."""
    blank = FENCE.sub(lambda m: " " * len(m[0]), text)  # a comment is no heading
    starts = [(m.start(), anchor(m[1])) for m in HEADING.finditer(blank)]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    (found,) = [
        text[start:end]
        for (start, of), end in zip(starts, ends, strict=True)
        if of == name
    ]
    return found.strip()


def page_of(path: str) -> str:
    """The page, or the file of the site, that shows a file of the repository."""
    if path in ("README.md", "docs/index.md"):
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in ("CONTRIBUTING.md", "CHANGELOG.md"):
        return path.lower()
    if path.startswith("examples/"):
        return f"tutorials/{Path(path).stem}.md"
    return f"source/{path}.md"


def targets(text: str, base: str) -> Iterable[str]:
    """Files of the repository that a document in the folder `base` links to."""
    for match in LINK.finditer(text):
        if match[1]:
            yield posixpath.normpath(posixpath.join(base, match[1].partition("#")[0]))


def linked(text: str, base: str, page: str) -> str:
    """The text with its links as they must be on `page`.

    Args:
      text: Markdown.
      base: the folder of the repository that its links are relative to.
      page: where it will stand in the site.
    """

    def replaced(match: re.Match) -> str:
        if not match[1]:
            return match[0]
        path, _, fragment = match[1].partition("#")
        target = page_of(posixpath.normpath(posixpath.join(base, path)))
        if (ROOT / "docs" / target).is_dir():
            target = f"{target}/files.md"
        url = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return f"]({url}#{fragment})" if fragment else f"]({url})"

    return LINK.sub(replaced, text)


def included(text: str, base: str) -> str:
    """The text with sections of other documents in place of `<!-- include -->`."""

    def replaced(match: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(base, match[1]))
        found = section((ROOT / path).read_text(encoding="utf-8"), match[2])
        return moved(found, posixpath.dirname(path), base)

    return INCLUDE.sub(replaced, text)


def moved(text: str, old: str, new: str) -> str:
    """The text with links relative to the folder `new` in place of `old`."""

    def replaced(match: re.Match) -> str:
        if not match[1]:
            return match[0]
        return f"]({posixpath.relpath(posixpath.join(old, match[1]), new or '.')})"

    return LINK.sub(replaced, text)


def outside() -> set[str]:
    """Files not in docs/, and no pages of their own, that documents link to."""
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    documents += (ROOT / "docs").rglob("*.md")
    found = set()
    for path in documents:
        base = path.relative_to(ROOT).parent.as_posix()
        for target in targets(path.read_text(encoding="utf-8"), base):
            if page_of(target).startswith("source/") and (ROOT / target).is_file():
                found.add(target)
    return found


def pages() -> dict[str, str]:
    """Page → Markdown, of documents and sources that lie outside docs/."""
    made = {}
    for path in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / path).read_text(encoding="utf-8")
        made[page_of(path)] = linked(text, "", page_of(path))
    for path in sorted(outside()):
        text = (ROOT / path).read_text(encoding="utf-8")
        kind = "python" if path.endswith(".py") else "text"
        made[page_of(path)] = f"# {path}\n\n````{kind}\n{text}\n````\n"
    made["results/files.md"] = results()
    return made


def results() -> str:
    """All that is kept of the results, by folder."""
    lines = ["# All files of results", ""]
    for folder in sorted(
        p for p in (ROOT / "docs" / "results").iterdir() if p.is_dir()
    ):
        lines += [f"## {folder.name}", ""]
        for path in sorted(folder.iterdir()):
            lines.append(f"- [{path.name}]({folder.name}/{path.name})")
        lines.append("")
    return "\n".join(lines)
