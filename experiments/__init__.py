"""Scripts that train, score and report; run one with `python -m experiments.NAME`."""
