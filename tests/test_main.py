"""What the command line does whichever command runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stilts_jax import interruption
from stilts_jax.commands import tasks
from stilts_jax.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_AGAIN, EXIT_USAGE
from stilts_jax.main import main


@pytest.mark.usefixtures("usual_handlers")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, EXIT_RUN_AGAIN), (signal.SIGINT, EXIT_INTERRUPTED)]
)
def test_a_signal_outside_of_training_ends_with_its_code(monkeypatch, capsys, number, code):
    def work(arguments):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            raise interruption.stop(" after step 7.")

    monkeypatch.setattr(tasks, "run", work)
    before = signal.getsignal(number)
    assert (main(["tasks"]), signal.getsignal(number)) == (code, before)
    assert "after step 7." in (said := capsys.readouterr().err) and "run the same command again" in said


TRAIN = "train --config=target --data_root={root} "
MINE = "mine --encoder={root} --source={file} --target={file} --out={root}/out "
BAD_LINES = (
    (TRAIN + "--workdir={file}/below", "--workdir"),
    (TRAIN + "--workdir=/proc/nope", "--workdir"),
    (TRAIN + "--workdir=memory://x", "memory://"),
    (TRAIN + "--workdir={root}/" + 300 * "x", "too long"),
    (TRAIN + "--workdir={root}/w --trace={file}", "--trace"),
    (TRAIN + "--workdir={root}/w --trace=gs://x/y", "local"),
    (TRAIN + "--workdir={root}/w --config.train.max_steps", "--config.train.max_steps=VALUE"),
    (TRAIN + "--workdir={root}/w --config.train.epsilon=inf", "train.epsilon"),
    (TRAIN + "--workdir={root}/\udcff", "UTF-8"),
    ("train --config= --data_root={root} --workdir={root}/w", "--config"),
    ("train --config=target --data_root={file} --workdir={root}/w", "no folder"),
    ("train --config=target --data_root={root}/none --workdir={root}/w", "does not exist"),
    (MINE + "--neighbours=0", "--neighbours"),
    (MINE + "--tokens_per_batch=-1", "--tokens_per_batch"),
    (MINE + "--threshold=nan", "--threshold"),
    (MINE + "--out=/dev/stdout", "pipe or device"),
    ("predict {root} --input={root}/x.tsv --out={file}/below", "--out"),
    ("score --predictions={root} --gold={root} --out=/dev/stdout", "pipe or device"),
    ("bench --max_length=1", "at least 8"),
    ("bench --rows=0", "--rows"),
    ("plan --topology=cpu:1 --rows=x", "--rows"),
    ("plan --topology=cpu:1 --task=tatoeba", "without training"),
    ("plan --topology=cpu:1 --length=1024", "512 tokens"),
    ("plan --topology=cpu:1 --encoder=lagre", "did you mean 'large'"),
    ("demo --workdir={file}", "--workdir"),
    ("demo --seeds=-1", "--seeds"),
    ("export {root} --out=gs://x/y", "local"),
    ("eval {root} --config=target --task=xnli --data_root={root} --out={file}", "--out"),
    ("tasks --data_root=/no/such", "--data_root"),
    ("prepare --data_root={file}", "--data_root"),
    ("score --predictions=gs://x/y --gold={root}", "local"),
    ("score --predictions= --gold={root}", "where: --predictions"),
    ("report s9://x/y", "s9://"),
    ("score --predictions={root} --gold={root} --benchmark=--", "--benchmark=VALUE"),
    ("tasks --data_rot=x", "did you mean '--data_root'"),
    ("gird", "did you mean 'grid'"),
    ("grid --config=toy:sise=test", "did you mean 'size'"),
    (TRAIN + "--workdir={root}/w --part=1/2", "it is an option of stilts grid"),
    (TRAIN + "--workdir={root}/w --learning_rate=9", "did you mean --config.train.learning_rate?"),
    ("grid --config=target --data_root={root} --workdir={root}/w --part=3/2", "--part"),
    ("tasks --config.title=x", "takes no config"),
)


@pytest.mark.parametrize(("line", "word"), BAD_LINES, ids=[line for line, _ in BAD_LINES])
def test_a_wrong_command_line_is_refused_in_plain_words(line, word, tmp_path, capsys):
    (tmp_path / "file").write_text("x\n")
    (tmp_path / "root").mkdir()
    places = {"root": tmp_path / "root", "file": tmp_path / "file"}
    assert main([item.format(**places) for item in line.split(" ") if item]) == EXIT_USAGE
    assert word in (said := capsys.readouterr().err) and "Traceback" not in said
    assert not list((tmp_path / "root").rglob("*")) and not list(Path().glob("gs:*"))


def test_a_traceback_is_shown_where_it_is_asked_for_or_the_defect_is_ours(monkeypatch, capsys):
    for more in (["--traceback"], []):
        assert main(["tasks", "--data_root=/no/such", *more]) == EXIT_USAGE
        assert ("Traceback" in capsys.readouterr().err) == bool(more)
    monkeypatch.setattr(tasks, "run", lambda arguments: {}[1])
    assert main(["tasks"]) == EXIT_ERROR
    assert {"Traceback", "defect"} <= set(capsys.readouterr().err.replace(":", " ").split())


def test_help_loads_nothing_heavy():
    code = "import sys; from stilts_jax.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    heavy = {"jax", "numpy", "pyarrow", "transformers", "ml_collections", "pandas", "matplotlib", "jinja2"}
    code += f"print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("out", "code"), [("/dev/full", EXIT_ERROR), ("/dev/null", EXIT_OK)])
def test_output_that_can_not_be_written_is_told_once_and_strange_letters_are(out, code, tmp_path):
    (tmp_path / "ü").mkdir()
    command = f"{sys.executable} -m stilts_jax.main tasks ccg --data_root={tmp_path}/ü >{out}"
    environment = os.environ | {"PYTHONUNBUFFERED": "", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr.count("No space")) == (code, code) and "ignored" not in done.stderr
