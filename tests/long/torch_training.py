"""Trains phases of a finished grid again in PyTorch, on the same batches and settings, and compares dev scores.

Only the draws of the head's first weights and of dropout differ, so the scores should differ as seeds do. For phases
that start from the encoder itself and train one task, on a CPU (0.5 s to 4 s a step for a small encoder):

    python tests/long/torch_training.py --config=CONFIG --data_root=D --workdir=W PHASE...
"""

import argparse
import math
import tempfile

import numpy as np
import torch
import transformers

from stilts_jax.commands.options import add_experiment, adder, open_context, read_settings
from stilts_jax.evaluation.evaluate import evaluate_task
from stilts_jax.evaluation.metrics import main_score
from stilts_jax.experiment.models import open_model, read_trained
from stilts_jax.experiment.phases import list_phases
from stilts_jax.experiment.train import load_selection, load_training, make_batches
from stilts_jax.model import Model
from stilts_jax.tokenization import PAD_ID

CLASSES = {
    "classify": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "span": transformers.AutoModelForQuestionAnswering,
}


def name_inputs(arrays):
    """Returns a batch as transformers names it."""
    inputs = {"input_ids": arrays["tokens"], "attention_mask": arrays["tokens"] != PAD_ID}
    if "start" in arrays:
        inputs |= {"start_positions": arrays["start"], "end_positions": arrays["end"]}
    else:
        labels = arrays.get("label", arrays.get("tags"))
        inputs["labels"] = np.where(labels < 0, -100, labels)
    return {name: torch.from_numpy(array.astype(np.int64)) for name, array in inputs.items()}


def train(phase, task, chosen, train_settings, batches, steps):
    """Returns the trained model: the loop as transformers' examples write it."""
    torch.manual_seed(phase.seed)
    labels = {"num_labels": len(task.labels)} if task.kind != "span" else {}
    model = CLASSES[task.kind].from_pretrained(phase.encoder, **labels).train()
    matrices = [one for one in model.parameters() if one.ndim > 1]
    vectors = [one for one in model.parameters() if one.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": chosen.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=chosen.learning_rate,
        eps=train_settings.epsilon,
    )
    warmup = math.ceil(chosen.warmup * steps) if chosen.warmup < 1 else int(chosen.warmup)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps)
    for step in range(steps):
        model(**name_inputs(batches.batch_at(step).arrays)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train_settings.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def score(model, task, features, settings):
    """Returns the dev score of a PyTorch model, taken in through a transformers folder."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(model.config.name_or_path).save_pretrained(folder)
        opened = open_model(folder)
    ((name, head),) = opened.heads.items()
    found = evaluate_task(
        Model(opened.config, ((name, head.config),), settings.compute),
        {"encoder": opened.params, "head": head.params},
        task,
        features,
        features.examples,
        head=name,
    )
    values = [main_score(task.metric, one.values) for one in found.results.values()]
    return sum(values) / len(values)


def main():
    """Prints both scores of each phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_experiment(adder(parser))
    parser.add_argument("phases", nargs="+", metavar="PHASE")
    arguments = parser.parse_args(namespace=argparse.Namespace(overrides={}, command_line=""))
    settings = read_settings(arguments)
    context = open_context(settings, arguments.data_root, arguments.workdir)
    known = {phase.name: phase for phase in list_phases(settings)}
    for name in arguments.phases:
        phase = known[name]
        record = read_trained(context.folder(phase), context.key(phase))
        tokenizer = context.tokenizer(phase.encoder)
        ((part, _),) = data = load_training(phase, context)
        ((dev, features),) = load_selection(phase, context)
        batches, steps = make_batches(phase, context, data, tokenizer)
        ours = dict(record["history"])[steps]
        model = train(phase, part.task, part.hyperparameters, settings.train, batches, steps)
        theirs = score(model, dev.task, features, settings)
        items = features.num_examples
        print(
            f"{name}: after {steps} steps, dev of {items}: stilts_jax {ours:.1f}, PyTorch {theirs:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
