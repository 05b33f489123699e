"""What MkDocs calls (mkdocs.yml): it adds pages, and mends links out of docs/."""

import posixpath
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # MkDocs loads a file

from mkdocs.structure.files import File

from website import api, links, methods, tutorials

SHIM = "https://unpkg.com/iframe-worker/shim"
LEVEL = re.compile(r"^<!-- rows: ([\w ]+) -->$", re.MULTILINE)


def made() -> dict[str, str]:
    return {**methods.pages(), **tutorials.pages(), **api.pages(), **links.pages()}


def on_config(config):
    """A page a method and a tutorial: entries that name a folder hold its pages."""
    titles = methods.titles()
    within = {
        "methods/": [
            "methods/index.md",
            *({t: f"methods/{n}.md"} for n, t in titles.items()),
        ],
        "tutorials/": [
            "tutorials/index.md",
            *({t: f"tutorials/{n}.md"} for n, t in tutorials.NAMES.items()),
        ],
        "reference/": [
            "reference/index.md",
            *(f"reference/{title.lower()}.md" for title in api.GROUPS),
            "reference/commands.md",
        ],
    }  # fmt: skip
    config["nav"] = [
        {title: within.get(of, of) if isinstance(of, str) else of}
        for entry in config["nav"]
        for title, of in entry.items()
    ]
    return config


def on_files(files, config):
    for page, text in made().items():
        files.append(File.generated(config, page, content=text))
    for name in ("site.css", "iframe-worker.js"):
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        files.append(File.generated(config, f"assets/{name}", content=text))
    return files


def on_post_page(output, page, config):
    """Searched without a server, Material loads a script of the web: here is ours."""
    base = posixpath.dirname(page.url) or "."
    return output.replace(SHIM, posixpath.relpath("assets/iframe-worker.js", base))


def on_post_template(output_content, template_name, config):
    """Likewise in 404.html."""
    return output_content.replace(SHIM, "/assets/iframe-worker.js")


def on_page_markdown(markdown, page, config, files):
    uri = page.file.src_uri
    if page.file.generated_by:
        return markdown  # its links are those of the site
    base = posixpath.normpath(posixpath.join("docs", posixpath.dirname(uri)))
    text = links.linked(links.included(markdown, base), base, uri)
    return LEVEL.sub(lambda match: methods.of_level(match[1]), text)
