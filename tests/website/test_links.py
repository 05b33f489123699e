"""Documents as pages: links that leave docs/, and sections of other documents."""

import pytest

from website import links

TEXT = """# A title
intro

## First, of `all`
one

```python
# no heading
```
two

## Second
three
"""


def test_a_section_ends_at_the_next_heading():
    found = links.section(TEXT, "first-of-all")
    assert found.startswith("## First")
    assert found.endswith("two")
    assert links.section(TEXT, "second") == "## Second\nthree"
    assert links.section(TEXT, "a-title") == "# A title\nintro"


def test_an_unknown_section_is_an_error():
    with pytest.raises(ValueError, match="unpack"):
        links.section(TEXT, "third")


@pytest.mark.parametrize(
    ("link", "base", "page", "url"),
    [
        ("kernel.md#a", "docs", "using.md", "kernel.md#a"),
        ("../README.md#start", "docs", "using.md", "index.md#start"),
        ("../examples/own_network.py", "docs", "a.md", "tutorials/own_network.md"),
        ("../fssd_jax/recipes.py", "docs", "a.md", "source/fssd_jax/recipes.py.md"),
        ("docs/speed.md", "", "contributing.md", "speed.md"),
        (
            "../../using.md",
            "docs/results/fmnist",
            "results/fmnist/a.md",
            "../../using.md",
        ),
        ("results/", "docs", "results.md", "results/files.md"),
        ("../docs/kernel.md", "examples", "tutorials/a.md", "../kernel.md"),
    ],
)
def test_a_link_leads_to_the_page_of_its_file(link, base, page, url):
    assert links.linked(f"a [b]({link}) c", base, page) == f"a [b]({url}) c"


def test_the_web_anchors_and_code_are_left_alone():
    text = "[a](https://x.org) [b](#c) `[d](e.md)`\n\n```\n[f](g.md)\n```\n"
    assert links.linked(text, "docs", "a/b.md") == text


def test_sections_stand_where_they_are_included():
    line = "<!-- include --> [Start](../README.md#start)"
    found = links.included(f"a\n\n{line}\n\nb", "docs")
    assert found.startswith("a\n\n## Start\n")
    assert found.endswith("\n\nb")
    assert "(using.md#installing-and-data)" in found  # README's: docs/using.md
    assert "include -->" not in found


def test_every_file_that_is_linked_to_is_there():
    found = links.outside()
    assert "fssd_jax/recipes.py" in found
    assert all((links.ROOT / path).is_file() for path in found)
