"""The site: what MkDocs builds from docs/, README, docstrings, results and examples/."""
