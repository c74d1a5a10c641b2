"""What `from stilts_jax import ...` promises, and the example of every name there."""

import doctest

import pytest

import stilts_jax

NEEDS_A_RUN = {"evaluate", "load_results", "predict_texts"}  # their examples read a finished demo
COMPILES_LONG = {"init_state", "train_step"}  # the example of the package has them too
CONSTANTS = {"RULES", "SHAPES"}  # these are in the example of the package


def test_every_public_name_can_be_imported():
    assert set(stilts_jax.__all__) == set(stilts_jax._HOMES)
    assert all(callable(getattr(stilts_jax, name)) for name in {*stilts_jax.__all__} - CONSTANTS)
    assert not hasattr(stilts_jax.RULES, "append") and not hasattr(stilts_jax.SHAPES, "update")
    assert {*stilts_jax.__all__, "__version__"} <= set(dir(stilts_jax))
    assert isinstance(stilts_jax.__version__, str)
    with pytest.raises(AttributeError, match="trian_step"):
        _ = stilts_jax.trian_step


def run_example(found, **names):
    """Runs the example in the docstring of ``found`` itself."""
    example = doctest.DocTestParser().get_doctest(found.__doc__, names, found.__name__, None, 0)
    assert example.examples, f"{found.__name__} has no example"
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("name", sorted({*stilts_jax.__all__} - NEEDS_A_RUN - COMPILES_LONG - CONSTANTS))
def test_the_example_of_a_name(name, tmp_path):
    run_example(getattr(stilts_jax, name), folder=tmp_path)


def test_the_example_of_the_package():
    run_example(stilts_jax)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NEEDS_A_RUN | COMPILES_LONG))
def test_the_example_of_a_name_that_takes_longer(name, demo, tmp_path):
    run_example(getattr(stilts_jax, name), workdir=demo[0], folder=tmp_path)
