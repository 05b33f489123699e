"""The site, which MkDocs builds from docs/, docstrings, results and examples/."""
