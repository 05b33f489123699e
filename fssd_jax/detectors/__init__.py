"""One file a method: `fit(...) -> state` and a pure, jittable
`score(feature_fn or logit_fn, variables, state, x) -> [batch]`; higher means more
in-distribution. A new method is a new file with these two functions.
"""
