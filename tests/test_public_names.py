"""What `from stilts_jax import ...` promises."""

import subprocess
import sys

import pytest

import stilts_jax


def test_every_public_name_can_be_imported():
    assert stilts_jax.__all__ == sorted(stilts_jax._HOMES)
    for name in stilts_jax.__all__:
        assert callable(getattr(stilts_jax, name))
    assert {*stilts_jax.__all__, "__version__"} <= set(dir(stilts_jax))
    assert isinstance(stilts_jax.__version__, str)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="trian_step"):
        _ = stilts_jax.trian_step


def test_tasks_and_data_load_nothing_heavy():
    code = (
        "import sys, stilts_jax.tasks.sources.prepare, stilts_jax.batches.plan, stilts_jax.features.store\n"
        "[stilts_jax.tasks.get_task(name) for name in stilts_jax.tasks.list_tasks()]\n"
        "heavy = {'jax', 'datasets', 'tensorflow_datasets', 'tensorflow', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
