"""Says whether a finished `stilts demo` shows transfer: zero-shot scores beside guessing, and their fall with distance.

For each target, on the row without an intermediate task: the macro score over the languages that were not trained
on; what the best guess without reading scores on the same gold; the standard error; and Spearman's rank correlation
of score and distance from English. The standard error joins the spread over seeds with that of drawing other test
items (bootstrap over items, the same items in every language where they are translations).

    python tests/long/toy_transfer.py WORKDIR
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from stilts_jax.evaluation.metrics import chunk_f1, squad
from stilts_jax.report.results import Run
from stilts_jax.report.statistics import score_items, spearman
from stilts_jax.tasks import get_task
from stilts_jax.tasks.sources.read import DataSource, read_examples, read_retrieval


def guess(task, language, source):
    """Returns what the best answer that looks at nothing but the form of the question scores, in percent."""
    if task.kind == "embed":
        return 100.0 / len(read_retrieval(task, task.reported, language, source).candidates)
    examples = read_examples(task, task.reported, language, source)
    if task.kind == "tag":
        gold = [example.tags for example in examples]
        named = [[task.labels[tag] for tag in tags] for tags in gold]
        constant = ([[label] * len(tags) for tags in gold] for label in task.labels)
        return max(chunk_f1(task, tags, named, language).values["f1"] for tags in constant)
    if task.kind == "span":
        gold = {example.id: [text for text, _ in example.answers] for example in examples}
        pieces = {example.id: example.context.split() or [example.context] for example in examples}
        answers = [{key: " ".join(words) for key, words in pieces.items()}]
        answers += [
            {key: words[place % len(words)] for key, words in pieces.items()} for place in (0, 1, 2, -1)
        ]
        return max(np.mean(list(squad(task, one, gold, language).values.values())) for one in answers)
    labels = [example.label for example in examples]
    return 100.0 * max(map(labels.count, set(labels))) / len(labels)


def item_error(run, name, languages):
    """Returns the standard deviation of the macro score over bootstrap samples of the test items."""
    generator = np.random.default_rng(0)
    items = {language: one for language, one in run.items(name).items() if language in languages}
    macros = []
    for _ in range(300):
        scores, drawn = [], {}
        for one in items.values():
            if not one.ids or one.ids not in drawn:  # translations of the same items are drawn together
                drawn[one.ids] = generator.integers(len(one.values), size=len(one.values))
            scores.append(score_items(replace(one, values=one.values[drawn[one.ids]])))
        macros.append(np.mean(scores))
    return float(np.std(macros))


def row(task, runs, distances, source):
    """Returns one line of the table."""
    tables = []
    for run in runs:
        here = [one for one in run.scores if one[:2] == (task.name, run.split(task.name))]
        main = [(code, value) for _, _, metric, code, value in here if metric in run.metrics(task.name)]
        tables.append({code: np.mean([value for one, value in main if one == code]) for code, _ in main})
    languages = sorted(set(tables[0]) - {"en"})
    macros = [np.mean([table[language] for language in languages]) for table in tables]
    baseline = np.mean([guess(task, language, source) for language in languages])
    error = item_error(runs[0], task.name, languages)
    if len(macros) > 1:
        error = np.hypot(error, np.std(macros, ddof=1) / np.sqrt(len(macros)))
    by_language = np.array([np.mean([table[language] for table in tables]) for language in languages])
    rho, p = spearman(by_language, np.array([distances[language] for language in languages]))
    score = np.mean(macros)
    above = (score - baseline) / error
    return (
        f"{task.name:10}{len(runs):6}{score:8.1f}{baseline:8.1f}{error:7.2f}{above:16.1f}{rho:7.2f}{p:7.3f}"
        f"  {len(languages)} languages"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workdir", type=Path)
    workdir = parser.parse_args().workdir
    with (workdir / "world/languages.csv").open(encoding="utf-8") as file:
        distances = {row["code"]: float(row["distance"]) for row in csv.DictReader(file)}
    source = DataSource(workdir / "world/data")
    runs = [Run(path) for path in sorted((workdir / "grid/phases").glob("none+*/result.json"))]
    print(
        f"{'target':10}{'runs':>6}{'score':>8}{'guess':>8}{'s.e.':>7}{'above, in s.e.':>16}{'rho':>7}{'p':>7}"
    )
    for name in sorted({task for run in runs for task in run.tasks}):
        task = get_task(name)
        print(row(task, [run for run in runs if name in run.tasks], distances, source))


if __name__ == "__main__":
    main()
