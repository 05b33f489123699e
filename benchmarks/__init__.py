"""Timings, as ratios against a named peer in the same run; never part of the tests."""

import experiments  # noqa: F401  # which says what to install for either
