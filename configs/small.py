"""The recipe with a small encoder (12 layers of 384, multilingual-e5-small's shape) on real languages.

Purpose: the experiment's whole grid cut to two CPU cores (size=cpu) or for a GPU (size=gpu), and the question of what
pictures do, with its control (size=pictures). Nothing here compares to the paper.
Expected: the README's sections on real languages.
Time: by ``--dry_run`` size=cpu with one seed has 2.3 PFLOP, size=gpu 15; size=pictures took about an hour in two parts,
one a core. The grid may be ended and begun again anywhere.

    stilts grid --config=small:encoder=E,seeds=1 --data_root=D --workdir=W

stage=mlm trains the encoder further with masked language modelling on the texts of the data root, all languages, and
scores retrieval by layer before and after; ``stilts export W/phases/mlm.s0-... --out=M`` then makes the encoder M.

Arguments: encoder (a folder or hub name), size (cpu, pictures or gpu), stage (grid or mlm), seeds.
"""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument

_TEXT = {  # rows and columns in the order in which they are worth having
    "experiment.intermediates": "none+mnli+squad_v1+commonsenseqa+ccg+hellaswag+cosmosqa+mnli/mlm"
    "+mnli/squad_v1/hellaswag/cosmosqa/commonsenseqa/ccg",
    "experiment.targets": "xnli+tydiqa+udpos+tatoeba+bucc+sib200+xquad+xcopa+panx+lareqa",
    "experiment.train_on": "xcopa=siqa",  # of COPA there are 400 rows
    "train.eval_every": 100_000,  # the last step is taken
}
_TWO_CORES = {
    "compute.dtype": "float32",
    "train.batch_size": 16,
    "train.epochs": 1.0,
    "train.max_length": 192,
}
SIZES = {
    "cpu": {
        **_TEXT,
        **_TWO_CORES,
        "data.limit": 4000,
        "evaluation.limit": 100,
        "mixture.mlm_batch_size": 16,
        "train.by_task": "mnli.epochs=0.5,xnli.epochs=0.5,udpos.epochs=0.5,panx.epochs=0.5,squad_v1.epochs=0.25,"
        "xquad.epochs=0.25,tydiqa.epochs=0.25,lareqa.epochs=0.25,xcopa.epochs=0.25,hellaswag.epochs=0.15,"
        "cosmosqa.epochs=0.15,commonsenseqa.epochs=1,ccg.epochs=1,sib200.epochs=3",
    },
    "gpu": {
        **_TEXT,
        "train.batch_size": 32,
        "train.buckets": 2,
        "mixture.mlm_batch_size": 32,
        "train.by_task": "mnli.epochs=1,xnli.epochs=1,udpos.epochs=1,panx.epochs=0.5,squad_v1.epochs=0.3,"
        "xquad.epochs=0.3,lareqa.epochs=0.2,xcopa.epochs=0.5,hellaswag.epochs=1,cosmosqa.epochs=0.7,"
        "commonsenseqa.epochs=2,ccg.epochs=3,sib200.epochs=5",
    },
    "pictures": {
        **_TWO_CORES,
        "experiment.intermediates": "none+easy_vqa+easy_vqa:blind",
        "experiment.targets": "xnli+udpos+tatoeba",
        "experiment.languages": "en+de+es+ru+sw+th+ur+zh",
        "evaluation.limit": 250,
        "data.picture_size": 64,
        "data.picture_patch": 32,
        # So small an encoder sees only after all of easy-VQA, and without dropout.
        "model.hidden_dropout": 0.0,
        "model.attention_dropout": 0.0,
        "train.eval_every": 200,
        "train.eval_examples": 400,
        "train.head_rate": 3.0,
        "train.by_task": "easy_vqa.learning_rate=2e-4,easy_vqa.batch_size=32,easy_vqa.epochs=0.6,xnli.epochs=0.12,"
        "mnli.epochs=0.12,udpos.epochs=0.2",
    },
}


def get_config(argument: str = "") -> ConfigDict:
    # The smallest of the family on the hub. The README's E has multilingual-e5-small's weights in XLM-R's layout.
    encoder = "FacebookAI/xlm-roberta-base"
    arg = parse_argument(argument, encoder=encoder, size=tuple(SIZES), stage=("grid", "mlm"), seeds=2)
    c = base_config()
    c.encoder = arg.encoder
    c.experiment.intermediate_seeds = arg.seeds
    c.experiment.target_seeds = 1 if arg.size == "pictures" else arg.seeds
    c.train.learning_rate = 1e-4  # the paper's rates are for encoders thirty times as large
    c.model.retrieval_layer = 12  # sentences were compared by the last layer when this encoder was trained
    c.update_from_flattened_dict(SIZES[arg.size])
    if arg.stage == "mlm":
        c.experiment.intermediates, c.experiment.targets = "none+mlm", "tatoeba+bucc"
        c.experiment.intermediate_seeds = c.experiment.target_seeds = 1
        c.model.sweep_layers = True
        c.train.epochs = 0.3 if arg.size == "cpu" else 1.0  # 626 steps, an hour of two cores
    return c
