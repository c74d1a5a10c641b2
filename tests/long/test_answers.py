"""`stilts predict` and `stilts plan` at unusual tables, heads and tasks."""

from types import SimpleNamespace

import pytest

from stilts_jax.chips import find_chip
from stilts_jax.commands.plan import find_shape, make_setup
from stilts_jax.config import load_config, to_settings
from stilts_jax.errors import ConfigError, DataError
from stilts_jax.experiment import predict
from stilts_jax.model import HeadConfig, TaskHead

pytestmark = pytest.mark.slow


def test_no_row_of_a_table_is_dropped_in_silence(tmp_path):
    table = tmp_path / "x.tsv"
    table.write_text("text\na\nb\n\n\n")  # as an editor leaves its end
    assert [text for _, text in predict._read_texts(table, "classify", {})] == ["a", "b"]
    table.write_text("text\na\n\nb\n")
    with pytest.raises(DataError, match="before it is empty"):
        list(predict._read_texts(table, "classify", {}))


def test_a_head_with_one_output_has_no_label_to_predict(monkeypatch):
    head = TaskHead(HeadConfig(kind="classify", num_labels=1), {})
    opened = SimpleNamespace(heads={"classify": head}, rows={})
    monkeypatch.setattr(predict, "own_options", lambda name: {"compute.dtype": "float32"})
    monkeypatch.setattr(predict, "open_model", lambda name, progress: opened)
    with pytest.raises(ConfigError, match="one output"):
        predict.predict_texts("reranker", ["a"])


@pytest.mark.parametrize("task", ["ccg", "vqa_v2", "xgqa"])
def test_a_task_whose_labels_come_with_the_data_can_be_planned(task):
    options = SimpleNamespace(task=task, rows=32, length=64, sweep=False)
    setup = make_setup(to_settings(load_config("target")), options, "v5e:2x2", find_shape("base"))
    assert setup.head.num_labels > 400


def test_both_names_of_a_v5e_are_its_own():
    assert [find_chip(name).name for name in ("TPU v5e", "TPU v5 lite", "TPU v5p")] == ["v5e", "v5e", "v5p"]
