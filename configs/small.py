"""The recipe with a small encoder (12 layers of 384, multilingual-e5-small's shape) on real languages.

Purpose: the experiment's whole grid cut to two CPU cores (size=cpu) or for a GPU (size=gpu), and the question of what
pictures do, with its control (size=pictures).
A fourteenth of XLM-R Large's layers, part of the data, few languages: nothing here compares to the paper.
Expected: the README's sections on real languages.
Time: by ``--dry_run`` size=cpu with one seed has 2.3 PFLOP, size=gpu 15; size=pictures took about an hour in two parts,
one a core. Rows stand in the order in which they are worth having: the grid may be ended and begun again anywhere.

    stilts grid --config=small:encoder=E,seeds=1 --data_root=D --workdir=W

stage=mlm trains the encoder further with masked language modelling on the texts of the data root, all languages, and
scores retrieval by layer before and after; ``stilts export W/phases/mlm.s0-... --out=M`` then makes the encoder M.

Arguments: encoder (a folder or hub name), size (cpu, pictures or gpu), stage (grid or mlm), seeds.
"""

from ml_collections import ConfigDict

from stilts_jax.config import base_config, parse_argument

TARGETS = {
    "text": "xnli+tydiqa+udpos+tatoeba+bucc+sib200+xquad+xcopa+panx+lareqa",
    "pictures": "xnli+udpos+tatoeba",
}
INTERMEDIATES = {
    "text": "none+mnli+squad_v1+commonsenseqa+ccg+hellaswag+cosmosqa+mnli/mlm"
    "+mnli/squad_v1/hellaswag/cosmosqa/commonsenseqa/ccg",
    "pictures": "none+easy_vqa+easy_vqa:blind",
}


def get_config(argument: str = "") -> ConfigDict:
    """Returns the grid of one size."""
    encoder = "intfloat/multilingual-e5-small"
    sizes, stages = ("cpu", "pictures", "gpu"), ("grid", "mlm")
    arg = parse_argument(argument, encoder=encoder, size=sizes, stage=stages, seeds=2)
    c = base_config()
    c.encoder = arg.encoder
    kind = "pictures" if arg.size == "pictures" else "text"
    c.experiment.intermediates, c.experiment.targets = INTERMEDIATES[kind], TARGETS[kind]
    c.experiment.intermediate_seeds = arg.seeds
    c.experiment.target_seeds = 1 if kind == "pictures" else arg.seeds
    c.train.learning_rate = 1e-4  # the paper's rates are for encoders thirty times as large
    c.model.retrieval_layer = 12  # sentences were compared by the last layer when this encoder was trained
    if kind == "text":
        c.experiment.train_on = "xcopa=siqa"  # of COPA there are 400 rows
        c.train.eval_every = 100_000  # the last step is taken
    if arg.size == "gpu":
        c.train.batch_size = 32
        c.train.buckets = 2
        c.train.by_task = (
            "mnli.epochs=1,xnli.epochs=1,udpos.epochs=1,panx.epochs=0.5,squad_v1.epochs=0.3,xquad.epochs=0.3,"
            "lareqa.epochs=0.2,xcopa.epochs=0.5,hellaswag.epochs=1,cosmosqa.epochs=0.7,commonsenseqa.epochs=2,"
            "ccg.epochs=3,sib200.epochs=5"
        )
        c.mixture.mlm_batch_size = 32
    else:
        c.compute.dtype = "float32"
        c.data.limit = 4000
        c.train.batch_size = 16
        c.train.epochs = 1.0
        c.train.max_length = 192
    if arg.size == "cpu":
        c.evaluation.limit = 100
        c.mixture.mlm_batch_size = 16
        c.train.by_task = (
            "mnli.epochs=0.5,xnli.epochs=0.5,udpos.epochs=0.5,panx.epochs=0.5,squad_v1.epochs=0.25,xquad.epochs=0.25,"
            "tydiqa.epochs=0.25,lareqa.epochs=0.25,xcopa.epochs=0.25,hellaswag.epochs=0.15,cosmosqa.epochs=0.15,"
            "commonsenseqa.epochs=1,ccg.epochs=1,sib200.epochs=3"
        )
    if arg.size == "pictures":
        c.experiment.languages = "en+de+es+ru+sw+th+ur+zh"
        c.evaluation.limit = 250
        # So small an encoder sees only after all of easy-VQA, and without dropout.
        c.data.limit = 0
        c.data.picture_size, c.data.picture_patch = 64, 32
        c.model.hidden_dropout = c.model.attention_dropout = 0.0
        c.train.eval_every, c.train.eval_examples = 200, 400
        c.train.head_rate = 3.0
        c.train.by_task = (
            "easy_vqa.learning_rate=2e-4,easy_vqa.batch_size=32,easy_vqa.epochs=0.6,"
            "xnli.epochs=0.12,mnli.epochs=0.12,udpos.epochs=0.2"
        )
    if arg.stage == "mlm":
        c.experiment.intermediates, c.experiment.targets = "none+mlm", "tatoeba+bucc"
        c.experiment.intermediate_seeds = c.experiment.target_seeds = 1
        c.experiment.train_on = ""
        c.model.sweep_layers = True
        c.train.epochs = 0.5 if arg.size == "cpu" else 1.0
    return c
