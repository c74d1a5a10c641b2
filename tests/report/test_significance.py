"""Differences and their errors, through the files of a report, against scipy and numbers by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stilts_jax.report import write_report
from tests.report.made_up_grid import items, table, write, write_grid, write_right, xnli


def test_the_deviation_of_a_difference_is_that_of_its_seed_pairs(tmp_path):
    """The differences 8, 9, 7 vary less than either side; Tatoeba, trained on nothing, goes with all runs of a seed."""
    base, own, tatoeba = [50.0, 55.0, 60.0], [58.0, 64.0, 67.0], [40.0, 41.0]
    for seed in range(3):
        write(tmp_path, "none", (None, seed), xnli(en=base[seed] + 1, sw=base[seed] - 1))
        for first in range(2):
            write(tmp_path, "mnli", (first, seed), xnli(en=own[seed] + first, sw=own[seed] + first))
    write(tmp_path, "none", (None, None), {"tatoeba": {"accuracy": {"sw": 30.0}}}, None)
    for first in range(2):
        write(tmp_path, "mnli", (first, None), {"tatoeba": {"accuracy": {"sw": tatoeba[first]}}}, None)
    pairs = np.array([[own[seed] + first - base[seed] for seed in range(3)] for first in range(2)])
    ranks = np.array(tatoeba) - 30.0
    expected = {
        "XNLI": (pairs.mean(), pairs.std(ddof=1), 6),
        "Tatoeba": (ranks.mean(), ranks.std(ddof=1), 2),
        "All": ((pairs.mean() + ranks.mean()) / 2, ((pairs + ranks[:, None]) / 2).std(ddof=1), 6),
    }
    paths = write_report(tmp_path)
    found = table(paths, "main") + table(paths, "averages")
    for column, numbers in expected.items():
        (line,) = [one for one in found if (one["intermediate"], one["column"]) == ("MNLI", column)]
        names = ("difference", "difference_sd", "runs")
        assert [float(line[name]) for name in names] == pytest.approx(numbers)
    totals = np.array(own) + np.arange(2)[:, None] + np.array(tatoeba)[:, None]
    assert float(line["percent_sd"]) == pytest.approx((totals / 2).std(ddof=1))
    (line,) = [one for one in found if (one["intermediate"], one["column"]) == ("none", "XNLI")]
    assert (float(line["percent"]), float(line["percent_sd"])) == pytest.approx((55.0, 5.0))
    assert line["difference"] == line["difference_sd"] == ""
    by_language = table(paths, "languages_xnli")
    (line,) = [one for one in by_language if (one["language"], one["column"]) == ("Swahili sw", "MNLI")]
    assert float(line["difference_sd"]) == pytest.approx((pairs + 1).std(ddof=1))


def test_an_average_has_the_error_of_seeds_of_the_task_that_has_several(tmp_path):
    """Of XNLI there are three target seeds, of PAWS-X one: half of XNLI's error is the average's, at least."""
    gains = np.array([30, 50, 10])
    for row in ("none", "mnli"):
        for seed in range(3):
            right = np.arange(400) < 200 + gains[seed] * (row == "mnli")
            write_right(tmp_path, row, (None if row == "none" else 0, seed), {"xnli": {"de": right}})
        right = {"pawsx": {"de": np.arange(400) < 300 + (row == "mnli")}}
        write_right(tmp_path, row, (None if row == "none" else 0, 0), right, "pawsx")
    paths = write_report(tmp_path)
    found = table(paths, "main") + table(paths, "averages")
    (xnli_line, average) = [
        next(one for one in found if (one["intermediate"], one["column"]) == ("MNLI", column))
        for column in ("XNLI", "Classification")
    ]
    expected = np.std(100 * gains / 400, ddof=1) / np.sqrt(3)
    assert float(xnli_line["error_seeds"]) == pytest.approx(expected)
    assert float(average["error_seeds"]) == pytest.approx(expected / 2)
    both = np.array([float(average["error_items"]), expected / 2]) ** 2
    degrees = both.sum() ** 2 / (both**2 / (799, 2)).sum()  # Welch and Satterthwaite
    half = stats.t.ppf(0.975, degrees) * np.sqrt(both.sum())
    assert float(average["high"]) - float(average["low"]) == pytest.approx(2 * half)


@pytest.mark.parametrize("seed", range(3))
def test_interval_and_p_agree_with_each_other_and_with_the_paired_t_test(tmp_path, seed):
    generator = np.random.default_rng(seed)
    rows = {name: generator.random(700) < 0.6 for name in ("none", "mnli", "qqp", "ccg")}
    rows["qqp"] |= generator.random(700) < 0.1
    rows["ccg"] |= generator.random(700) < 0.4
    for name, values in rows.items():
        write_right(tmp_path, name, (0, 0), {"xnli": {"en": values}})
    found = {line["intermediate"]: line for line in table(tmp_path, "main")}
    for title, name in (("MNLI", "mnli"), ("QQP", "qqp"), ("CCG", "ccg")):
        expected = stats.ttest_rel(100.0 * rows[name], 100.0 * rows["none"])
        low, high = expected.confidence_interval()
        line = {key: float(value) for key, value in found[title].items() if key in ("low", "high", "p")}
        assert (line["low"], line["high"], line["p"]) == pytest.approx((low, high, expected.pvalue))
        assert (line["p"] < 0.05) == (line["low"] > 0 or line["high"] < 0)
    # Of one language the table by language asks the same.
    corrected = [[one["holm"] for one in table(tmp_path, name)[1:4]] for name in ("main", "languages_xnli")]
    assert corrected[0] == corrected[1] and all(corrected[0])


@pytest.mark.parametrize(
    ("ids", "counts", "compared"),
    [
        ("aa", (100, 100), True),
        (("", ""), (100, 100), True),
        (("", "a"), (100, 100), False),
        ("ab", (100, 100), False),
        ("aa", (99, 100), False),
    ],
)
def test_other_items_are_not_paired(tmp_path, ids, counts, compared):
    """Equally many items after another skipped row are not the same items."""
    for name, digest, count in zip(("none", "mnli"), ids, counts):
        values = np.tile([0, 1], 50)[:count].astype(np.uint8)
        write(tmp_path, name, (0, 0), xnli(en=50.0), items={"xnli": {"en": items(values, digest)}})
    assert any(line.get("p") for line in table(tmp_path, "main")) == compared


@pytest.mark.parametrize("code", ["", "@de"])
def test_pictures_are_compared_with_their_control_by_paired_items(tmp_path, code):
    generator, right = np.random.default_rng(0), {}
    pair, named = (f"easy_vqa{code}", f"easy_vqa.blind{code}"), " (de)" * bool(code)
    for row in ("none", *pair, "coco_captions.text+mlm"):
        right[row] = {code: generator.random(400) < 0.6 for code in ("en", "de")}
        write_right(tmp_path, row, (None if row == "none" else 0, 0), {"xnli": right[row]}, ids="")
    (line,) = table(tmp_path, "pictures")
    assert line["intermediate"] == f"easy-VQA{named} − easy-VQA, blind{named}" and line["column"] == "XNLI"
    seen, blind = (np.array([*right[row].values()], float) for row in pair)
    gaps = 100 * (seen - blind)
    assert float(line["difference"]) == pytest.approx(gaps.mean())
    error = np.sqrt(sum(gaps.var(axis=1, ddof=1) / 400)) / 2
    assert (float(line["high"]) - float(line["low"])) / 2 == pytest.approx(1.96 * error, rel=0.01)


def test_the_mean_over_tasks_has_the_interval_of_independent_tasks(tmp_path):
    """Its standard error is the root of the sum of squares, over the number of tasks; the headline has it."""
    generator = np.random.default_rng(5)
    errors, differences = [], []
    for task, training in (("xnli", "mnli"), ("pawsx", "pawsx")):
        base, own = (generator.random((2, 900)) + shift < 0.5 for shift in (0, -0.15))
        for name, values in (("none", base[0]), ("mnli", own[1])):
            write_right(tmp_path, name, (0, 0), {task: {"de": values}}, training)
        differences.append(100 * (own[1].mean() - base[0].mean()))
        errors.append(100 * stats.sem(1.0 * own[1] - base[0]))
    paths, error = write_report(tmp_path), np.hypot(*errors) / 2
    middle = np.mean(differences)
    (line,) = [one for one in table(paths, "averages") if one["column"] == "All" and one["difference"]]
    expected = [middle, middle - 1.96 * error, middle + 1.96 * error]
    assert [float(line[name]) for name in ("difference", "low", "high")] == pytest.approx(expected, abs=0.02)
    low, high = (f"{expected[place]:+.1f}".replace("-", "−") for place in (1, 2))
    assert f"(95\xa0% {low} to {high}, 1 language)" in paths.html.read_text("utf-8")


def test_one_family_of_correlations_has_scipys_q(tmp_path):
    write_grid(tmp_path, intermediates=["none", "mnli", "qqp"], trainings=["mnli", "panx"], count=40)
    names = [path.stem for path in write_report(tmp_path).tables.glob("typology_*.csv")]
    lines = pd.concat([pd.read_csv(tmp_path / "report" / "tables" / f"{name}.csv") for name in names])
    assert len(names) > 1
    p, q = (lines[list(pair)].to_numpy() for pair in (("p", "partial_p"), ("q", "partial_q")))
    assert q[np.isfinite(p)] == pytest.approx(stats.false_discovery_control(p[np.isfinite(p)]))


def test_seed_components_are_of_the_largest_full_table_and_of_one_design(tmp_path):
    """Seven runs of which one intermediate seed lacks two: 2 x 3 is there. Another row has 3 x 2."""
    scores = {(0, 0): 60.0, (0, 1): 62.0, (0, 2): 61.0, (1, 0): 66.0, (1, 1): 67.0, (1, 2): 69.0}
    scores[2, 0] = 70.0
    for seeds, value in scores.items():
        write(tmp_path, "mnli", seeds, xnli(en=value))
    for first in range(3):
        for second in range(2):
            write(tmp_path, "qqp", (first, second), xnli(en=50.0 + 3 * first + second * second * first))
    full = np.array([[scores[first, second] for second in range(3)] for first in range(2)])
    residual = full - full.mean(1, keepdims=True) - full.mean(0) + full.mean()
    rest = (residual**2).sum() / 2
    by_hand = [3 * full.mean(1).var(ddof=1), 2 * full.mean(0).var(ddof=1)]
    expected = [max((by_hand[0] - rest) / 3, 0) ** 0.5, max((by_hand[1] - rest) / 2, 0) ** 0.5, rest**0.5]
    lines = {next(v for k, v in one.items() if "seeds" in k): one for one in table(tmp_path, "seeds")}
    assert set(lines) == {"2 x 3", "3 x 2"}
    names = ("intermediate seed", "target seed", "rest")
    assert [float(lines["2 x 3"][name]) for name in names] == pytest.approx(expected)


def test_translations_vary_together(tmp_path):
    """Four languages with the very same outcomes tell no more than one: the interval must not shrink."""
    # Whatever the task says of itself: items of the same ids are the same, as in the toy world's languages.
    first, second = np.random.default_rng(0).random((2, 1500)) < 0.7
    error = 100 * stats.sem(1.0 * second - first)
    for ids, expected in (("digest", error), ("", error / 2)):
        folder = tmp_path / f"grid{ids}"
        for row, right in (("none", first), ("mnli", second)):
            encoded = dict.fromkeys(("de", "fr", "ru", "zh"), items(1 * right, ids))
            scores = dict.fromkeys(encoded, 100 * right.mean())
            write(folder, row, (0, 0), xnli(**scores), items={"xnli": encoded})
        (_, line) = table(folder, "main")
        assert float(line["error_items"]) == pytest.approx(expected)
        assert line["items"] == ("1500.0" if ids else "6000.0")


def test_translations_that_some_languages_lack_vary_together_too(tmp_path):
    """Of 900 sentences French has the first 600, with the same outcomes: each moves the mean by its two shares."""
    base, own = np.random.default_rng(0).random((2, 900)) < 0.7
    counts = {"de": 900, "fr": 600}
    for row, right in (("none", base), ("mnli", own)):
        by_language = {code: right[:count] for code, count in counts.items()}
        encoded = {code: items(1 * one, code, named=True) for code, one in by_language.items()}
        scores = {code: 100 * one.mean() for code, one in by_language.items()}
        write(tmp_path, row, (0, 0), xnli(**scores), items={"xnli": encoded})
    (_, line) = table(tmp_path, "main")
    moved = np.zeros(900)
    for count in counts.values():
        gap = 1.0 * own[:count] - base[:count]
        moved[:count] += 100 * (gap - gap.mean()) / count / 2
    assert float(line["error_items"]) == pytest.approx(np.sqrt((moved**2).sum()), rel=1e-3)


def test_pairs_that_some_languages_lack_are_joined_by_what_is_in_gold(tmp_path):
    """F1 of a set of pairs: what a run found beside the gold set is its own."""
    for row, right in (("none", 20), ("mnli", 25)):
        encoded = {}
        for code, count in (("de", 60), ("fr", 50)):
            found, gold = np.arange(count) < right, np.arange(count) % 2
            values = np.stack([gold * found, found, gold], 1).astype(np.uint8)
            encoded[code] = items(values, code, "binary_f1", named=True)
        scores = {code: 200 * (right // 2) / (right + count // 2) for code, count in (("de", 60), ("fr", 50))}
        write(tmp_path, row, (0, 0), {"xnli": {"f1": scores}}, items={"xnli": encoded})
    assert float(table(tmp_path, "main")[1]["error_items"]) > 0


@pytest.mark.parametrize("ids", ["same", ""])
def test_a_score_has_an_interval_of_its_own(tmp_path, ids):
    values = np.random.default_rng(1).random((3, 400)) < 0.7
    write_right(tmp_path, "none", (0, 0), {"xnli": dict(zip(("de", "fr", "ru"), values))}, ids=ids)
    (line,) = table(tmp_path, "main")
    error = stats.sem(values.mean(axis=0)) if ids else np.sqrt((stats.sem(values, axis=1) ** 2).sum()) / 3
    half = 100 * error * stats.t.ppf(0.975, 399 if ids else 1199)
    ends = [float(line[name]) for name in ("percent_low", "percent_high")]
    assert ends == pytest.approx([100 * values.mean() - half, 100 * values.mean() + half])
    page = write_report(tmp_path).markdown.read_text("utf-8")
    assert "there is no intermediate task to compare with" in page
    assert f"{ends[0]:.1f} to {ends[1]:.1f}" in page


def test_the_interval_of_a_score_is_over_seeds_too(tmp_path):
    values = np.random.default_rng(1).random((3, 400)) < [[0.5], [0.6], [0.7]]
    for seed, one in enumerate(values):
        write_right(tmp_path, "none", (None, seed), {"xnli": {"en": one}})
    (line,), least = table(tmp_path, "main"), 4.3 * stats.sem(100 * values.mean(axis=1))
    assert float(line["percent_high"]) - float(line["percent_low"]) > least
