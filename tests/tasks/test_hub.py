"""Hub data: published layouts fetched from a stand-in hub, read offline; what is not as published is named."""

import fnmatch
from functools import partial

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stilts_jax.errors import DataError
from stilts_jax.tasks import get_task
from stilts_jax.tasks.custom import classify_task
from stilts_jax.tasks.sources import hub
from stilts_jax.tasks.sources.inventory import prepare
from stilts_jax.tasks.sources.read import DataSource, read_examples
from tests.tasks import hub_server
from tests.tasks.hub_server import MAIN, NLI, PARQUET, make_parquet, parse_features

online = hub_server.online
XNLI = "facebook/xnli"
TWO_ROWS = make_parquet(NLI, [("a", "b", 0), ("c", "d", 2)])
API, FILES = "GET /api/datasets/facebook/xnli/revision*", "/datasets/facebook/xnli/resolve*"
TEST_FILE = {(XNLI, MAIN): {f"de/test{PARQUET}": TWO_ROWS}}


@pytest.fixture
def xnli(tmp_path):
    """Fetches German test data of XNLI, and says how many files of them are there."""
    data_set = next(source for source in get_task("xnli").sources if source.name == XNLI)
    fetch, find = (partial(act, data_set, "test", "de", tmp_path) for act in (hub.fetch, hub.find))
    return fetch, lambda: sum(map(len, find().values()))


@pytest.mark.parametrize(
    ("place", "fault", "waited"),
    [
        (API, [429, 429], [4.0, 4.0]),  # as long as the hub says, and a second
        (f"HEAD {FILES}", [429, 429], [4.0]),
        (f"GET {FILES}", [429], [4.0]),
        (f"GET {FILES}", ["cut"], []),
    ],
)
def test_a_passing_fault_is_waited_for(online, xnli, tmp_path, place, fault, waited):
    server = online(TEST_FILE)
    server.faults = {place: list(fault)}
    xnli[0]()
    examples = read_examples(get_task("xnli"), "test", "de", DataSource(tmp_path, kind="hub"))
    assert [example.label for example in examples] == [1, 0]
    assert len(fnmatch.filter(server.requests, place)) == len(fault) + 1
    assert server.waited[: len(waited)] == waited


@pytest.mark.parametrize(
    ("files", "faults", "words"),
    [
        ({}, {}, ("facebook/xnli", "'404 Not Found' for url", "check the name", "HF_TOKEN")),
        ({(XNLI, MAIN): {f"de/train{PARQUET}": TWO_ROWS}}, {}, ("parquet files are in de",)),
        (TEST_FILE, {API: [429] * 99}, ("429", "HF_TOKEN")),
        (TEST_FILE, {f"GET {FILES}": [404] * 99}, ("check the name",)),
        (TEST_FILE, {f"GET {FILES}": ["cut"] * 99}, ("connection",)),
    ],
)
def test_what_does_not_come_is_not_taken_as_data(online, xnli, files, faults, words):
    fetch, count = xnli
    server = online(files)
    server.faults = faults
    with pytest.raises(DataError) as caught:
        fetch()
    assert all(word in str(caught.value) for word in words), caught.value
    assert count() == 0
    if files is TEST_FILE:  # the same command goes on where it stopped
        server.faults = {}
        fetch()
        assert count() == 1


def test_a_split_of_several_files_counts_only_when_all_are_there_and_once(online, tmp_path, write):
    server = online({(XNLI, MAIN): {f"de/train-0000{n}-of-00002.parquet": TWO_ROWS for n in (0, 1)}})
    server.faults = {f"GET {FILES}00001-of*": [404] * 9}
    (data_set,) = (source for source in get_task("mnli").sources if source.name == XNLI)
    with pytest.raises(DataError):
        hub.fetch(data_set, "train", "de", tmp_path)
    assert hub.find(data_set, "train", "de", tmp_path) == {}
    server.faults = {}
    hub.fetch(data_set, "train", "de", tmp_path)
    read = partial(read_examples, get_task("mnli@de"), "train", "de", DataSource(tmp_path, kind="hub"))
    write(f"hub/{XNLI}/de/train-00000-of-00003.parquet", TWO_ROWS)  # of an older release, of which parts lack
    assert len({example.id for example in read()}) == 4
    write(f"hub/{XNLI}/de/train{PARQUET}", TWO_ROWS)
    with pytest.raises(DataError, match="a split is here twice"):
        read()


def test_a_configuration_may_be_a_folder_in_a_folder(online, tmp_path):
    online({("me/mine", MAIN): {f"a/b/test{PARQUET}": make_parquet("text:string label:x|y", [("z", 1)])}})
    task = classify_task("mine", hub="me/mine/a/b", splits="test", labels=("x", "y"))
    assert not any(one.note for one in prepare([task], DataSource(tmp_path, kind="hub"), download=True)[0])


def test_both_failures_are_shown_and_no_repository_is_asked_again(online, tmp_path):
    server = online({})
    source = DataSource(tmp_path, kind="hub")
    splits, _ = prepare([get_task("siqa"), get_task("xcopa")], source, download=True)
    assert all(name in splits[0].note for name in ("lighteval/siqa", "allenai/social_i_qa"))
    asked = [line.partition("/revision")[0] for line in server.requests]
    assert len(asked) == len(set(asked)) == 3  # of 2 + 2 * 11 splits


@pytest.mark.parametrize(
    ("features", "row", "expected"),
    [
        ("text:string verdict:good|bad", ("x", 1), 0),
        ("text:string verdict:string", ("x", "good"), 1),
        ("text:string verdict:int64", ("x", 1), "verdict is 1, and none of bad, good"),
        ("review:string verdict:good|bad", ("x", 1), "there is no 'text'"),
        ("text:string* verdict:good|bad", (["x"], 1), "text is a list of 1, not a text"),
    ],
)
def test_a_data_set_that_nobody_listed_works_or_says_what_is_missing(
    tmp_path, write, features, row, expected
):
    task = classify_task("mine", hub="me/mine", splits="test", labels=("bad", "good"), label="verdict")
    write(f"hub/me/mine/data/test{PARQUET}", make_parquet(features, [row]))
    read = partial(read_examples, task, "test", "en", DataSource(tmp_path, kind="hub"))
    if isinstance(expected, int):
        assert [example.label for example in read()] == [expected]
    else:
        with pytest.raises(DataError, match=expected) as caught:
            read()
        assert f"test{PARQUET}:1" in caught.value.where


def test_other_things_that_lie_in_the_folder(tmp_path):
    """What ``save_to_disk`` writes, parquet of other tools, and a file that broke off."""
    folder = tmp_path / "hub/facebook/xnli/de"
    read = partial(read_examples, get_task("xnli"), "test", "de", DataSource(tmp_path, kind="hub"))
    with pytest.raises(DataError, match="stilts prepare xnli --source=hub --data_root=/"):
        read()
    row = {"premise": "a", "hypothesis": "b"}
    data = datasets.Dataset.from_list([{**row, "label": 2}], features=parse_features(NLI))
    datasets.DatasetDict({"test": data}).save_to_disk(str(folder))
    assert [one.label for one in read()] == [0]  # contradiction
    pq.write_table(pa.Table.from_pylist([{**row, "label": "neutral"}]), folder / "test.parquet")
    assert [one.label for one in read()] == [2]
    for damaged in (TWO_ROWS[:-20], TWO_ROWS.replace(b"ClassLabel", b"ClassOther")):
        (folder / "test.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"can't be read[\s\S]*test.parquet"):
            read()
