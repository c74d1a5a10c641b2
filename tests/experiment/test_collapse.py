from stilts_jax.experiment.train import is_collapsed


def test_chance_has_a_margin_that_shrinks_with_the_examples():
    # The standard error of 500 guesses among three is 2.1 points.
    assert is_collapsed(33.3, 33.3, 500) and is_collapsed(37.0, 33.3, 500)
    assert not is_collapsed(38.0, 33.3, 500)
    assert not is_collapsed(37.0, 33.3, 5000)
    assert not is_collapsed(0.1, 0.0, 100)  # a span at chance scores nothing at all
    assert is_collapsed(0.0, 0.0, 100)
