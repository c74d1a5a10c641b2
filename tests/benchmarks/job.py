"""Times a whole job from the command line, beside the same job by ``transformers``' Trainer.

Usage: python tests/benchmarks/job.py --data_root=D --encoder=E [--rows=4000 --epochs=2 --scored=500]

Rows of MNLI are trained on and XNLI is scored in five languages: start-up, tokenization and compiling count. Ours runs
twice, with nothing kept from before and then with the programs that the first run compiled. The Trainer pads a batch to
its longest row, does not group by length, and takes its own default optimizer and all cores; both train in float32 with
batches of 32 up to 128 tokens. Needs torch and accelerate.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LANGUAGES = ("en", "de", "es", "ru", "zh")
LABELS = ("contradiction", "entailment", "neutral")
BATCH, LENGTH, RATE = 32, 128, 2e-5


def read_rows(path: Path, count: int) -> tuple[list[list[str]], list[int]]:
    """Pairs of sentences and numbers of labels: the first ``count`` of a file of XNLI."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:count]
    return [row[:2] for row in rows], [LABELS.index(row[2]) for row in rows]


def run_trainer(arguments: argparse.Namespace) -> None:
    """The peer's whole job, in a process of its own; prints the accuracy of each language."""
    import datasets
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.encoder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(arguments.encoder, num_labels=3)

    def dataset(name: str, count: int) -> datasets.Dataset:
        pairs, labels = read_rows(arguments.data_root / "xnli" / name, count)
        encoded = tokenizer(pairs, truncation=True, max_length=LENGTH)
        return datasets.Dataset.from_dict({**encoded, "labels": labels})

    settings = transformers.TrainingArguments(
        output_dir=arguments.workdir,
        num_train_epochs=arguments.epochs,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        learning_rate=RATE,
        report_to="none",
        use_cpu=True,
    )
    trainer = transformers.Trainer(
        model,
        settings,
        train_dataset=dataset("train-en.tsv", arguments.rows),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    trainer.train()
    trainer.save_model(arguments.workdir)
    for language in LANGUAGES:
        predicted = trainer.predict(dataset(f"test-{language}.tsv", arguments.scored))
        right = predicted.predictions.argmax(-1) == predicted.label_ids
        print(language, f"{100 * right.mean():.1f}", flush=True)


def our_command(arguments: argparse.Namespace, workdir: Path) -> list[str]:
    given = {
        "config": "xstilts:intermediates=none,targets=xnli,seeds=1",
        "data_root": arguments.data_root,
        "workdir": workdir,
        "config.encoder": arguments.encoder,
        "config.experiment.languages": "+".join(LANGUAGES),
        "config.data.limit": arguments.rows,
        "config.evaluation.limit": arguments.scored,
        "config.compute.dtype": "float32",
        "config.train.epochs": arguments.epochs,
        "config.train.batch_size": BATCH,
        "config.train.max_length": LENGTH,
        "config.train.learning_rate": RATE,
    }
    return [
        sys.executable,
        "-m",
        "stilts_jax.main",
        "grid",
        *(f"--{name}={value}" for name, value in given.items()),
    ]


def timed(name: str, command: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | environment)
    seconds = time.perf_counter() - began
    print(f"{name}: {seconds:.0f} s", flush=True)
    return seconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_root", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--scored", type=int, default=500, help="rows a language")
    parser.add_argument("--workdir", type=Path, default=Path(tempfile.gettempdir()) / "stilts_job")
    parser.add_argument("--as_trainer", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.as_trainer:
        run_trainer(arguments)
        return 0
    shutil.rmtree(arguments.workdir, ignore_errors=True)
    cache = {"XDG_CACHE_HOME": str(arguments.workdir / "cache")}
    peer = [sys.executable, __file__, "--as_trainer", f"--workdir={arguments.workdir / 'trainer'}"]
    names = ("data_root", "encoder", "rows", "epochs", "scored")
    peer += [f"--{name}={getattr(arguments, name)}" for name in names]
    seconds = {"cold": timed("cold", our_command(arguments, arguments.workdir / "cold"), cache)}
    seconds["warm"] = timed("warm", our_command(arguments, arguments.workdir / "warm"), cache)
    seconds["trainer"] = timed("trainer", peer, {})
    ratios = {name: seconds["trainer"] / seconds[name] for name in ("cold", "warm")}
    print(json.dumps({"seconds": seconds, "times_as_fast_as_the_trainer": ratios}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
