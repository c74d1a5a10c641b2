"""The embedded toy world: pretraining (stage=pretrain), then a small grid. What `stilts demo` runs.

Purpose: to see the whole recipe in minutes on a laptop. Toy languages, toy sizes: nothing here compares to a paper.
Expected: every target above chance in languages that its training never saw, less so in distant ones.
Time: small takes a minute and a half to three on two CPU cores, nothing compiled before; full was not timed since.

    stilts demo --workdir=W                               # writes the world, pretrains, runs the grid, reports
    stilts grid --config=toy:size=small --data_root=W/world/data --workdir=W/grid --config.encoder=W/encoder

Arguments: stage (pretrain or grid), size (test, small or full), seeds (0: what the size has).
"""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument

PRETRAINING_STEPS = {"test": 20, "small": 1000, "full": 3000}
# Rows and columns. In small those that take longest come first: no process of two is left alone at the end for long. Of
# two processes one begins with the first row, the other with the last: these have no training in common.
# In full SQuAD leads its row with MNLI, whose low rate would be the row's: TyDiQA gains a third of it then.
GRIDS = {
    "test": ("none+mnli", "udpos+xquad+tatoeba"),
    "small": ("none+squad_v1+mnli", "xquad+tydiqa+xnli+udpos+panx+tatoeba+bucc"),
    "full": (
        "none+mnli+squad_v1+squad_v1/mnli+mnli/mlm+easy_vqa+easy_vqa:blind",
        "xnli+udpos+panx+xquad+tydiqa+xcopa+tatoeba+bucc",
    ),
}


def get_config(argument: str = "") -> ConfigDict:
    arg = parse_argument(argument, stage=("grid", "pretrain"), size=("small", "test", "full"), seeds=0)
    c = base_config()
    c.title = f"Toy world ({arg.size}): toy results"
    c.compute.dtype = "float32"
    c.evaluation.max_length = 64
    c.train.log_every = 10
    c.train.max_length = 64
    c.train.batch_size = 16
    # The table is small: to train a part of it saves nothing, and a phase could not use what another one compiled.
    c.train.phase_vocabulary = arg.size == "test"
    if arg.stage == "pretrain":
        c.experiment.intermediates = "mlm"
        c.experiment.targets = ""
        c.train.learning_rate = 3e-3
        c.train.epochs = 1000.0
        c.train.max_steps = PRETRAINING_STEPS[arg.size]
        c.mixture.mlm_rate = 0.3  # a small vocabulary and short lines: more to learn from each
        c.mixture.mlm_alpha = 1.0
        return c
    full = arg.size == "full"
    c.experiment.intermediates, c.experiment.targets = GRIDS[arg.size]
    c.experiment.intermediate_seeds = c.experiment.target_seeds = arg.seeds or 1 + full
    # A third of the rate for each layer below: at one rate English training takes away what pretraining has aligned.
    c.train.learning_rate = 1e-3
    c.train.layer_decay = 0.35
    c.train.epochs = 1.0 if full else 1.5
    # In fewer epochs some seeds do not leave chance, and what is not learned would count as lost transfer.
    c.train.by_task = "xcopa.epochs=2"
    if full:
        # The more MNLI is learned, the more it takes from tagging in distant languages: 0.3 points at 3e-4.
        c.train.by_task = (
            "mnli.learning_rate=1e-4,mnli.head_rate=30,mnli.epochs=3,xnli.epochs=3,xcopa.epochs=6"
        )
        # XLM-R's own: without it training on SQuAD takes more from tagging. In small SQuAD is too short for it.
        c.model.hidden_dropout = c.model.attention_dropout = 0.1
    c.train.eval_every = 200
    c.train.eval_examples = 200
    c.mixture.mlm_max_length = 64
    c.data.picture_size = 32  # as they are drawn
    c.data.picture_patch = 8
    return c
