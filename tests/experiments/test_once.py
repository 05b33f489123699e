from experiments.comparison.once import Once


def test_it_is_made_again_of_other_objects_though_they_are_equal():
    once, made = Once(), []

    def make():
        made.append(len(made))
        return made[-1]

    one, other = [1], [1]
    assert [once((one, 2), make), once((one, 2), make)] == [0, 0]
    assert once((other, 2), make) == 1
    assert once((one, 2), make) == 2  # only the last is remembered
