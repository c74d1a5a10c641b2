"""The section "with pictures / without", against the paired standard error worked out by numpy."""

import numpy as np
import pandas as pd
import pytest
from made_up_grid import encode_items, make_record, write_record

from stilts_jax.report.write import write_report

ROWS = ("none", "easy_vqa", "easy_vqa.blind", "coco_captions.text+mlm")


def write(workdir, seeds=1, rows=ROWS, size=400):
    draw = np.random.default_rng(0)
    right = {}
    for row in rows:
        for seed in range(seeds):
            right[row, seed] = {code: draw.random(size) < 0.6 for code in ("en", "de")}
            scores = {code: 100 * values.mean() for code, values in right[row, seed].items()}
            items = {
                code: encode_items(values.astype(np.uint8), "mean", False)
                for code, values in right[row, seed].items()
            }
            tasks = {"xnli": {"accuracy": scores}}
            numbers = (None if row == "none" else 0, seed)
            write_record(workdir, make_record(row, "mnli", tasks, seeds=numbers, items={"xnli": items}))
    return right


def read(workdir):
    write_report(workdir)
    path = workdir / "report" / "tables" / "pictures.csv"
    return pd.read_csv(path) if path.exists() else None


def test_the_difference_and_its_interval_are_paired(tmp_path):
    right = write(tmp_path)
    (line,) = read(tmp_path).to_dict("records")
    assert line["intermediate"] == "easy-VQA − easy-VQA, blind" and line["column"] == "XNLI"
    pairs = [
        100 * (right["easy_vqa", 0][code].astype(float) - right["easy_vqa.blind", 0][code])
        for code in ("en", "de")
    ]
    error = np.sqrt(sum(one.var(ddof=1) / len(one) for one in pairs)) / 2
    assert line["difference"] == pytest.approx(np.mean(pairs))
    assert (line["high"] - line["low"]) / 2 == pytest.approx(1.96 * error, rel=0.01)
    assert line["items"] == 800
    page = (tmp_path / "report" / "report.html").read_text()
    assert 'id="pictures"' in page and "COCO captions, text + MLM" in page


def test_seeds_are_paired_too(tmp_path):
    right = write(tmp_path, seeds=3)
    (line,) = read(tmp_path).to_dict("records")
    means = {key: np.mean([100 * values.mean() for values in by.values()]) for key, by in right.items()}
    gaps = [means["easy_vqa", seed] - means["easy_vqa.blind", seed] for seed in range(3)]
    assert line["difference"] == pytest.approx(np.mean(gaps))
    assert line["error_seeds"] > 0


def test_no_section_without_a_control(tmp_path):
    write(tmp_path, rows=("none", "easy_vqa", "mnli"))
    assert read(tmp_path) is None
