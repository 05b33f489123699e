"""Whether folders are parts of a set, such as training and test images, by name."""

import re
from collections import defaultdict

_PART = r"(?:[\W\d_]|images?|imgs?|data|sets?|splits?)*"
# train, TRAIN, Training, train_set, images_train, val2017, trainA, Hold-out …
_SPLIT = re.compile(
    rf"{_PART}(?:(?P<train>train(?:ing|val)?)|(?P<test>test(?:ing)?)|"
    r"(?P<val>val(?:id(?:ation)?)?|dev(?:el(?:opment)?)?|eval(?:uation)?|"
    rf"h[eo]ld[\W_]?out))(?-i:[AB]?){_PART}",
    re.IGNORECASE,
)
_CAMEL = re.compile("(?<=[a-z])(?=[A-Z])")


def split_of(name: str) -> str | None:
    """ "train", "test" or "val", if a folder's name says that it is such a part."""
    found = _SPLIT.fullmatch(name)
    return found and found.lastgroup


def splits_among(names: set[str]) -> dict[str, str]:
    """Those of these folders that are parts of a set, and which.

    By their own names, or because they differ in nothing else: seg_train, seg_test.
    """
    found = {name: split for name in names if (split := split_of(name))}
    if found:
        return found
    by_stem: defaultdict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        words = re.findall(r"[^\W\d_]+", _CAMEL.sub(" ", name).casefold())
        splits = [split for word in words if (split := split_of(word))]
        if len(splits) == 1:
            stem = tuple(word for word in words if not split_of(word))
            by_stem[stem][name] = splits[0]
    for of_stem in by_stem.values():
        if len(set(of_stem.values())) > 1:
            found |= of_stem
    return found
