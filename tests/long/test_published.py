"""Every published layout of a hub data set, fetched from a stand-in hub and read."""

import dataclasses

import pytest

from stilts_jax.main import main
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.sources import hub
from stilts_jax.tasks.sources.inventory import expected_count
from stilts_jax.tasks.sources.read import DataSource, read_examples, read_retrieval
from tests.long.published import PUBLISHED
from tests.tasks import hub_server
from tests.tasks.hub_server import make_parquet

online = hub_server.online
pytestmark = pytest.mark.slow


def published_files():
    files: dict = {}
    for entry in PUBLISHED:
        body = make_parquet(entry.features, entry.rows)
        files.setdefault((entry.repository, entry.branch), {})[entry.file] = body
    return files


def data_set_of(entry):
    split = entry.file.rpartition("/")[2].partition("-")[0]
    # ANLI's rounds are splits of one repository, and PAWS-X's translations are read otherwise.
    named = [one for one in get_task(entry.task).sources if one.name == entry.repository]
    (only,) = (one for one in named if entry.task not in ("anli", "pawsx") or split in one.splits.values())
    return only


def read_from(data_set, entry, root):
    """What is read behind the ids, when the task has this data set alone."""
    task = dataclasses.replace(get_task(entry.task), sources=(data_set,))
    source = DataSource(root, kind="hub")
    if task.retrieval and entry.split == "test":
        examples = read_retrieval(task, entry.split, entry.language, source).queries
    else:
        examples = read_examples(task, entry.split, entry.language, source)
    return [dataclasses.astuple(example)[1 : 1 + len(entry.read_as)] for example in examples]


def test_every_published_data_set_is_fetched_and_read(online, tmp_path, capsys):
    server = online(published_files())
    names = sorted({entry.task for entry in PUBLISHED})
    languages = "--languages=" + "+".join(sorted({entry.language for entry in PUBLISHED}))
    assert main(["prepare", *names, "--source=hub", f"--data_root={tmp_path}", languages]) == 1
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    for entry in PUBLISHED:
        data_set = data_set_of(entry)
        if not hub.find(data_set, entry.split, entry.language, tmp_path):  # a second choice
            hub.fetch(data_set, entry.split, entry.language, tmp_path)
        elif entry.count:
            row = next(row for row in table if row[:3] == [entry.task, entry.split, entry.language])
            assert row[4] == str(entry.count), row  # what is expected is what the card says
        assert entry.read_as in read_from(data_set, entry, tmp_path), entry
        assert entry.count in (None, expected_count(get_task(entry.task), entry.split, entry.language))
    # No file but those of the splits that were asked for, and each once.
    fetched = [line for line in server.requests if line.startswith("GET /datasets/")]
    assert len(fetched) == len(set(fetched)) == len({(entry.repository, entry.file) for entry in PUBLISHED})


def test_every_data_set_that_a_task_names_is_among_the_published():
    for name in list_tasks():
        for source in get_task(name).sources:
            assert source.kind != "hub" or source.name in {entry.repository for entry in PUBLISHED}, name
