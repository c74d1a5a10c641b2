"""One intermediate phase: fine-tune the encoder on one task (or several at once) and keep it.

Purpose: the first half of the recipe alone, for use elsewhere (`stilts export` turns it into a folder).
Expected: English dev accuracy of XLM-R Large on MNLI about 89-90 (as commonly reported; not measured here).
Time: MNLI, 2 epochs of 392,702 pairs; ask `stilts plan` for your machine.

    stilts train --config=configs/intermediate.py:task=mnli --data_root=D --workdir=W

Arguments: task (several at once: "mnli/squad_v1"; with MLM: "mnli/mlm"), seed, preset, encoder.
"""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument


def get_config(argument: str = "") -> ConfigDict:
    arg = parse_argument(argument, task="mnli", seed=0, preset=("paper", "xtreme"), encoder="")
    c = base_config()
    c.preset = arg.preset
    c.encoder = arg.encoder or c.encoder
    c.experiment.intermediates = arg.task
    c.experiment.targets = ""
    c.experiment.first_seed = arg.seed
    c.experiment.keep = "all"
    return c
