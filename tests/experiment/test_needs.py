"""What a grid lacks is said at once, before anything runs, and what is there can be run."""

import pytest

from stilts_jax.main import main


@pytest.fixture(scope="module")
def run(world):
    def run(argument, *options, data_root=world / "data", workdir):
        spec = f"--config=xstilts:{argument},encoder=random:{world / 'encoder'}"
        limits = [f"--config.{name}=8" for name in ("data.limit", "evaluation.limit", "train.batch_size")]
        places = [f"--data_root={data_root}", f"--workdir={workdir}", "--config.train.max_length=128"]
        return main(["grid", spec, *places, "--dry_run", *limits, *options])

    return run


def test_all_that_is_missing_is_named_at_once(run, tmp_path, capsys):
    assert run("intermediates=none+qqp+anli,targets=panx+mewslix+masakhanews", workdir=tmp_path) == 1
    said = capsys.readouterr().err
    named = ("qqp train", "anli dev", "mewslix test", "masakhanews train")
    assert all(name in said for name in (*named, "anli/R1/train.jsonl", "--available"))
    assert "panx" not in said and said.count("qqp dev") == 1 and not list(tmp_path.glob("phases"))


def test_what_is_there_runs_without_the_rest(run, tmp_path, capsys):
    argument = "intermediates=none+qqp+mnli@de,targets=panx+mewslix+tatoeba+mlqa"
    exception = "--config.train.by_task=mnli@de.epochs=1"  # of a row that is left out
    assert run(argument, "--available", exception, workdir=tmp_path) == 0
    printed = capsys.readouterr()
    rows = {line.split()[0] for line in printed.out.splitlines() if line.startswith("none")}
    assert rows == {"none+panx.s0", "none+retrieval"}
    assert all(f"left out: {name}" in printed.err for name in ("qqp", "mewslix", "mlqa"))
    for nothing in ("none,targets=mewslix", "qqp,targets=tatoeba", "none+qqp,targets=mewslix"):
        assert run(f"intermediates={nothing}", "--available", workdir=tmp_path) == 1
    layer = "--config.model.retrieval_layer=99"
    assert run("intermediates=none,targets=tatoeba", layer, workdir=tmp_path) == 2
    assert "Layer 99 of an encoder of" in capsys.readouterr().err


def test_a_target_that_trains_on_a_missing_task_can_be_trained_on_another(run, world, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    for folder in (world / "data").iterdir():
        if folder.name != "siqa":
            (tmp_path / "data" / folder.name).symlink_to(folder)
    where = {"data_root": tmp_path / "data", "workdir": tmp_path / "W"}
    assert run("intermediates=none,targets=xcopa", **where) == 1
    said = capsys.readouterr().err
    assert "siqa/socialIQa_v1.4_trn.jsonl" in said and "train_on=" in said
    assert run("targets=xquad", "--config.experiment.select_on=target-languages", **where) == 1
    assert "set it to en for this target" in capsys.readouterr().err
    assert run("intermediates=none,targets=xcopa", "--config.experiment.train_on=xcopa=copa", **where) == 0


def test_languages_filter_what_is_reported_only_and_lengths_are_looked_at(run, tmp_path, capsys):
    options = ["--config.experiment.languages=de+es"]
    assert run("intermediates=mnli,targets=panx", *options, workdir=tmp_path) == 0
    assert "mnli.s0+panx.s0" in capsys.readouterr().out
    assert run("intermediates=mnli,targets=panx", "--config.train.max_length=200", workdir=tmp_path) == 2
    assert "rows of 200 tokens, the encoder takes 128" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "option", "said"),
    [
        ("targets=panx", "languages=en+xx", "'xx'"),
        ("targets=panx", "languages=en,de", "a+b"),
        ("targets=panx,xnli", "languages=", "a+b"),
        ("targets=panx", "targets=panx,xnli", "a+b"),
        ("targets=panx", "intermediates=none,mnli", "a+b"),
    ],
)
def test_unknown_languages_and_wrong_separators_are_said(run, tmp_path, capsys, argument, option, said):
    assert run(f"intermediates=none,{argument}", f"--config.experiment.{option}", workdir=tmp_path) == 2
    assert said in capsys.readouterr().err
