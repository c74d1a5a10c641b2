"""Hub data: published layouts fetched from a stand-in hub, read offline; what is not as published is named."""

import dataclasses
import fnmatch

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilts_jax.errors import DataError
from stilts_jax.main import main
from stilts_jax.tasks import get_task, list_tasks
from stilts_jax.tasks.custom import classify_task
from stilts_jax.tasks.sources import hub
from stilts_jax.tasks.sources.prepare import expected_count, prepare
from stilts_jax.tasks.sources.read import DataSource, read_examples, read_retrieval
from tests.tasks.hub_server import Hub, make_parquet, parse_features
from tests.tasks.published import CONVERTED, MAIN, NLI, PARQUET, PUBLISHED

XNLI = "facebook/xnli"
TWO_ROWS = make_parquet(NLI, [("a", "b", 0), ("c", "d", 2)])


@pytest.fixture
def online(monkeypatch):
    """Starts a hub, to which the client is turned. Waiting takes no time, and is written down."""

    def start(files) -> Hub:
        started = Hub(files)
        template = f"{started.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in (  # what HF_ENDPOINT and HF_HUB_OFFLINE set when the client is imported
            ("ENDPOINT", started.url),
            ("HUGGINGFACE_CO_URL_TEMPLATE", template),
            ("HF_HUB_OFFLINE", False),
        ):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr("time.sleep", waited.append)
        hub._list_remote.cache_clear()
        hubs.append(started)
        started.waited = waited
        return started

    hubs, waited = [], []
    yield start
    for started in hubs:
        started.server.shutdown()
        started.server.server_close()


def published_files():
    files: dict = {}
    for entry in PUBLISHED:
        body = make_parquet(entry.features, entry.rows)
        files.setdefault((entry.repository, entry.branch), {})[entry.file] = body
    return files


def data_set_of(entry):
    split = entry.file.rpartition("/")[2].partition("-")[0]
    # ANLI's rounds are splits of one repository.
    (only,) = (
        one
        for one in get_task(entry.task).sources
        if one.name == entry.repository and (entry.task != "anli" or split in one.splits.values())
    )
    return only


def read_from(data_set, entry, root):
    """What is read behind the ids, when the task has this data set alone."""
    task, source = (
        dataclasses.replace(get_task(entry.task), sources=(data_set,)),
        DataSource(root, kind="hub"),
    )
    if task.retrieval and entry.split == "test":
        examples = read_retrieval(task, entry.split, entry.language, source).queries
    else:
        examples = read_examples(task, entry.split, entry.language, source)
    return [dataclasses.astuple(example)[1 : 1 + len(entry.read_as)] for example in examples]


@pytest.mark.slow
def test_every_published_data_set_is_fetched_and_read(online, tmp_path, capsys):
    server = online(published_files())
    names = sorted({entry.task for entry in PUBLISHED})
    languages = "--languages=" + "+".join(sorted({entry.language for entry in PUBLISHED} - {"az"}))
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
        if not entry.source:
            print(f"unverified: the features of {entry.repository} are a guess")
    # No file but those of the splits that were asked for, and each once.
    fetched = [line for line in server.requests if line.startswith("GET /datasets/")]
    assert len(fetched) == len(set(fetched)) == len({(entry.repository, entry.file) for entry in PUBLISHED})


def test_every_data_set_that_a_task_names_is_among_the_published():
    for name in list_tasks():
        for source in get_task(name).sources:
            assert source.kind != "hub" or source.name in {entry.repository for entry in PUBLISHED}, name


API, FILES = "GET /api/datasets/facebook/xnli/revision*", "/datasets/facebook/xnli/resolve*"


def xnli_of_the_hub():
    return next(source for source in get_task("xnli").sources if source.name == XNLI)


@pytest.mark.parametrize(
    ("place", "fault", "waited"),
    [
        (API, [429, 429], [4.0, 4.0]),  # as long as the hub says, and a second
        (f"HEAD {FILES}", [429, 429], [4.0]),
        (f"GET {FILES}", [429], [4.0]),
        (f"GET {FILES}", ["cut"], None),
    ],
)
def test_a_passing_fault_is_waited_for(online, tmp_path, place, fault, waited):
    server = online({(XNLI, MAIN): {f"de/test{PARQUET}": TWO_ROWS}})
    server.faults = {place: list(fault)}
    hub.fetch(xnli_of_the_hub(), "test", "de", tmp_path)
    examples = read_examples(get_task("xnli"), "test", "de", DataSource(tmp_path, kind="hub"))
    assert [example.label for example in examples] == [1, 0]
    assert len(fnmatch.filter(server.requests, place)) == len(fault) + 1
    assert waited is None or server.waited[: len(waited)] == waited


TEST_FILE = {(XNLI, MAIN): {f"de/test{PARQUET}": TWO_ROWS}}


@pytest.mark.parametrize(
    ("files", "faults", "words"),
    [
        ({}, {}, ("facebook/xnli", "check the name", "HF_TOKEN")),
        ({(XNLI, MAIN): {"README.md": b""}}, {}, ("no parquet files of split 'test'",)),
        ({(XNLI, MAIN): {f"de/train{PARQUET}": TWO_ROWS}}, {}, ("parquet files are in de",)),
        (TEST_FILE, {API: [429] * 99}, ("429", "HF_TOKEN")),
        (TEST_FILE, {f"HEAD {FILES}": [429] * 99}, ("429", "HF_TOKEN")),
        (TEST_FILE, {f"GET {FILES}": [429] * 99}, ("429", "HF_TOKEN")),
        (TEST_FILE, {f"GET {FILES}": [404] * 99}, ("check the name",)),
        (TEST_FILE, {f"GET {FILES}": ["cut"] * 99}, ("connection",)),
        (TEST_FILE, {f"GET {FILES}": [500] * 99}, ("connection",)),
    ],
)
def test_what_does_not_come_is_not_taken_as_data(online, tmp_path, files, faults, words):
    server = online(files)
    server.faults = faults
    with pytest.raises(DataError) as caught:
        hub.fetch(xnli_of_the_hub(), "test", "de", tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value
    assert hub.find(xnli_of_the_hub(), "test", "de", tmp_path) == {}
    if files is TEST_FILE:  # the same command goes on where it stopped
        server.faults = {}
        hub.fetch(xnli_of_the_hub(), "test", "de", tmp_path)
        assert len(hub.find(xnli_of_the_hub(), "test", "de", tmp_path)[""]) == 1


def test_a_split_of_several_files_counts_only_when_all_are_there(online, tmp_path):
    parts = {f"de/train-0000{index}-of-00002.parquet": TWO_ROWS for index in (0, 1)}
    server = online({(XNLI, MAIN): parts})
    server.faults = {f"GET {FILES}00001-of*": [404] * 9}
    (data_set,) = (source for source in get_task("mnli").sources if source.name == XNLI)
    with pytest.raises(DataError):
        hub.fetch(data_set, "train", "de", tmp_path)
    assert hub.find(data_set, "train", "de", tmp_path) == {}
    server.faults = {}
    hub.fetch(data_set, "train", "de", tmp_path)
    examples = read_examples(get_task("mnli@de"), "train", "de", DataSource(tmp_path, kind="hub"))
    assert len(examples) == 4 and len({example.id for example in examples}) == 4


def test_both_failures_are_shown_and_no_repository_is_asked_again(online, tmp_path):
    server = online({})
    done = prepare([get_task("siqa"), get_task("xcopa")], DataSource(tmp_path, kind="hub"), download=True)
    assert not done.complete
    note = done.splits[0].note
    assert "lighteval/siqa" in note and "allenai/social_i_qa" in note
    asked = [line.partition("/revision")[0] for line in server.requests]
    assert len(asked) == len(set(asked)) == 3  # of 2 + 2 * 11 splits


def test_a_second_data_set_serves_where_the_first_fails(online, tmp_path):
    files = published_files()
    online({key: files[key] for key in [("allenai/social_i_qa", CONVERTED)]})
    done = prepare([get_task("siqa")], DataSource(tmp_path, kind="hub"), download=True)
    assert [split.found for split in done.splits] == [None, 2]


def test_a_data_set_that_nobody_listed_works_or_says_what_is_missing(tmp_path):
    task = classify_task("mine", hub="me/mine", splits="test", labels=("bad", "good"), label="verdict")
    folder = tmp_path / "hub/me/mine/data"
    folder.mkdir(parents=True)
    source = DataSource(tmp_path, kind="hub")
    for features, row, expected in (
        ("text:string verdict:good|bad", ("x", 1), 0),
        ("text:string verdict:string", ("x", "good"), 1),
        ("text:string verdict:int64", ("x", 1), "verdict is 1, and none of bad, good"),
        ("text:string sentiment:int64", ("x", 1), "there is no 'verdict'"),
        ("review:string verdict:good|bad", ("x", 1), "there is no 'text'"),
        ("text:string* verdict:good|bad", (["x"], 1), "text is a list of 1, not a text"),
    ):
        (folder / f"test{PARQUET}").write_bytes(make_parquet(features, [row]))
        if isinstance(expected, int):
            (example,) = read_examples(task, "test", "en", source)
            assert example.label == expected
        else:
            with pytest.raises(DataError, match=expected) as caught:
                read_examples(task, "test", "en", source)
            assert f"test{PARQUET}:1" in caught.value.where


def test_other_things_that_lie_in_the_folder(tmp_path):
    """What ``save_to_disk`` writes, parquet of other tools, and a file that broke off."""
    task, folder = get_task("xnli"), tmp_path / "hub/facebook/xnli/de"
    source = DataSource(tmp_path, kind="hub")
    with pytest.raises(DataError) as caught:
        read_examples(task, "test", "de", source)
    assert "stilts prepare xnli --source=hub" in caught.value.fix
    assert "hub/facebook/xnli" in caught.value.where
    row = {"premise": "a", "hypothesis": "b"}
    data = datasets.Dataset.from_list([{**row, "label": 2}], features=parse_features(NLI))
    datasets.DatasetDict({"test": data}).save_to_disk(str(folder))
    assert [one.label for one in read_examples(task, "test", "de", source)] == [0]  # contradiction
    pq.write_table(pa.Table.from_pylist([{**row, "label": "neutral"}]), folder / "test.parquet")
    assert [one.label for one in read_examples(task, "test", "de", source)] == [2]
    (folder / "test.parquet").write_bytes(TWO_ROWS[:-20])
    with pytest.raises(DataError, match="can't be read") as caught:
        read_examples(task, "test", "de", source)
    assert "test.parquet" in caught.value.where
