"""One target task: fine-tune in English, evaluate zero-shot in every language.

Purpose: the second half of the recipe alone, from any encoder (XLM-R itself or one that an intermediate phase left).
Expected: XLM-R Large on XNLI 79.2 over 15 languages (XTREME leaderboard).
Time: XNLI trains on MNLI, 2 epochs of 392,702 pairs; ask `stilts plan` for your machine.

    stilts train --config=configs/target.py:task=xnli --data_root=D --workdir=W

Arguments: task, seed, preset, encoder, source_language (of the training data).
"""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument


def get_config(argument: str = "") -> ConfigDict:
    known = {"preset": ("paper", "xtreme"), "encoder": "", "source_language": "en"}
    arg, c = parse_argument(argument, task="xnli", seed=0, **known), base_config()
    c.preset = arg.preset
    c.encoder = arg.encoder or c.encoder
    c.experiment.intermediates = "none"
    c.experiment.targets = arg.task
    c.experiment.first_seed = arg.seed
    c.experiment.source_language = arg.source_language
    c.experiment.keep = "all"
    return c
