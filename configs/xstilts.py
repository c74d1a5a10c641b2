"""The paper's experiment: every intermediate task against every XTREME target, over seeds.

Purpose: Phang et al. 2020 (arXiv 2005.13013), table 2, and any slice of it.
Expected: XLM-R Large without an intermediate task scores 68.1 on XTREME, the best intermediates 73.5 (published).
Time: `stilts grid --config=configs/xstilts.py --dry_run` prints steps, tokens, FLOPs and device-hours first.

    stilts grid --config=configs/xstilts.py --data_root=D --workdir=W
    stilts grid --config=configs/xstilts.py:intermediates=none+mnli,targets=xnli+panx+tatoeba,seeds=3 ...

Arguments: intermediates, targets (joined by "+"; several tasks at once as "mnli/squad_v1", with masked language
modelling as "mnli/mlm", another language as "mnli@de", a fine-tuned encoder as "hub:NAME"), benchmark (its targets:
xtreme, xtreme-r, africa, or xtreme-up, which trains few-shot in each language itself), seeds, intermediate_seeds,
target_seeds, preset, encoder, source_language.
"""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument
from stilts_jax.evaluation.benchmarks import BENCHMARKS

INTERMEDIATES = (
    "none+anli+mnli+qqp+squad_v1+squad_v2+hellaswag+ccg+cosmosqa+commonsenseqa"
    "+anli/qqp/squad_v1/squad_v2/hellaswag/ccg/cosmosqa/commonsenseqa"
)
TARGETS = {name: "+".join(task.name for task in tasks.values()) for name, tasks in BENCHMARKS.items()}


def get_config(argument: str = "") -> ConfigDict:
    tasks = {"intermediates": INTERMEDIATES, "targets": "", "benchmark": tuple(TARGETS)}
    seeds = {"seeds": 1, "intermediate_seeds": 0, "target_seeds": 0}
    known = {"preset": ("paper", "xtreme"), "encoder": "", "source_language": "en"}
    arg, c = parse_argument(argument, **tasks, **seeds, **known), base_config()
    c.preset = arg.preset
    c.encoder = arg.encoder or c.encoder
    c.experiment.intermediates = arg.intermediates
    c.experiment.targets = arg.targets or TARGETS[arg.benchmark]
    c.experiment.intermediate_seeds = arg.intermediate_seeds or arg.seeds
    c.experiment.target_seeds = arg.target_seeds or arg.seeds
    c.experiment.source_language = arg.source_language
    return c
