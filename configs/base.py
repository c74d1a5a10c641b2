"""Every option with its default: the one place to look an option up.

Purpose: what the other files in this folder start from; not an experiment of its own.
Change one for a run with ``--config.train.learning_rate=3e-5``; ``None`` means "as the task's preset says".
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the defaults."""
    c = ConfigDict()
    c.title = ""  # heading of the report; empty: made from the encoder's name
    c.encoder = "FacebookAI/xlm-roberta-large"  # a hub name (`stilts prepare` fetches it) or a folder
    c.debug = False  # set by `:debug`: a tiny randomly initialised encoder of the same family, few steps
    c.preset = "paper"  # hyperparameters by task: "paper" (Phang et al.) or "xtreme" (XTREME's scripts)

    c.data = data = ConfigDict()
    data.source = (
        "files"  # "files" (release files), "hub" or "tfds"; a task without such a source is read from files
    )
    data.sources = ""  # exceptions by task, as in "mnli=hub,panx=tfds"
    data.skip_budget = 0  # malformed rows that may be skipped (and counted) in a file before it is refused
    data.cache = ""  # folder for tokenized features; empty: features/ in the work directory
    data.limit = 0  # train on the first n examples only; 0: all

    c.experiment = experiment = ConfigDict()
    experiment.intermediates = "none"  # rows of the table, joined by "+"; "mnli/mlm" is one row of two tasks
    experiment.targets = "xnli"  # columns of the table, joined by "+"
    experiment.languages = (
        ""  # evaluation languages, joined by "+"; empty: all that the tasks and the data have
    )
    experiment.intermediate_seeds = 1
    experiment.target_seeds = 1
    experiment.first_seed = 0
    experiment.source_language = "en"  # language of the target tasks' training data
    experiment.train_on = ""  # exceptions, as in "xcopa=copa": on COPA alone, without SIQA first
    experiment.select_on = (
        "en"  # "target-languages" selects on their dev sets: no longer zero-shot, and reported so
    )
    experiment.keep = (
        "models"  # of finished phases: "none", "encoders" (intermediates), "models", "all" (optimizer too)
    )

    c.train = train = ConfigDict()
    train.learning_rate = placeholder(float)
    train.batch_size = placeholder(int)
    train.epochs = placeholder(float)
    train.max_length = placeholder(int)
    train.warmup = placeholder(float)  # below 1: share of the steps; else a number of steps
    train.weight_decay = placeholder(float)
    train.max_steps = 0  # stop (and shorten the schedule) after this many steps; 0: what the epochs need
    train.schedule = "linear"  # "linear", "cosine" or "constant", after the warm-up
    train.clip_norm = 1.0
    train.epsilon = 1e-8
    train.layer_decay = 1.0  # learning rate of a layer over that of the layer above it
    train.freeze_embeddings = False
    train.freeze_layers = 0  # lowest layers that stay as they are
    train.moment_dtype = "float32"  # "bfloat16" halves the first moment's memory
    train.accumulation = 1  # microbatches a step; a CPU works on two at a time, so 2 are faster there than 1
    train.window = 8  # batches that are sorted by length together; 1: plain shuffle
    train.buckets = 6  # at most this many padded lengths, so this many compiled steps a task
    train.phase_vocabulary = True  # train only the embedding rows that the phase's data use
    train.eval_every = 1000
    train.eval_examples = 500  # of the English selection set; 0: all
    train.patience = 30  # evaluations without a gain before a run stops; 0: never
    train.checkpoint_every = 1000
    train.keep_latest = 2  # newest checkpoints kept besides the best one: what a damaged one falls back on
    train.skip_non_finite = 0  # steps with a non-finite loss that may be left out before the run stops
    train.log_every = 50
    train.tensorboard = False  # a copy of the metrics for TensorBoard (needs the extra of that name)

    c.mixture = mixture = ConfigDict()
    mixture.sampler = "capped"  # "uniform", "proportional", "capped", "temperature" or "weights"
    mixture.cap = 131072  # examples at which a task's size is cut (recalled from the paper, not verified)
    mixture.temperature = 2.0
    mixture.weights = ""  # as in "mnli=2,mlm=1"
    mixture.mlm_weight = 0.2  # share of the steps that "+mlm" gets
    mixture.mlm_alpha = 0.3  # languages of MLM are drawn with p ~ n^alpha
    mixture.mlm_rate = 0.15  # share of the tokens that are predicted
    mixture.mlm_languages = ""  # joined by "+"; empty: all that the data root has
    mixture.mlm_batch_size = 8
    mixture.mlm_max_length = 256

    c.model = model = ConfigDict()
    model.head_form = "transformers"  # or "jiant", the paper authors' (pooler, then dense-tanh-out)
    model.head_init = "transformers"  # normal(0, 0.02); "jiant": uniform(+-1/sqrt(fan-in))
    model.retrieval_layer = 0  # 0: 14 of 24, the same share of other depths
    model.sweep_layers = False  # retrieval at every layer; picking one of them by its score is not zero-shot

    c.compute = compute = ConfigDict()
    compute.dtype = "bfloat16"
    compute.param_dtype = "float32"
    compute.remat = "dots"
    compute.attention = "auto"
    compute.matmul_precision = ""  # "highest" for exact float32 on accelerators
    compute.rng = "threefry2x32"  # does not depend on the mesh; "rbg" is faster on TPU
    compute.check_nans = False

    c.mesh = mesh = ConfigDict()
    mesh.data = -1  # -1: all devices that the other axes leave
    mesh.fsdp = 1
    mesh.tensor = 1
    mesh.zero1 = False  # shard the optimizer's state over `data` too

    c.evaluation = evaluation = ConfigDict()
    evaluation.tokens_per_batch = 16384
    evaluation.limit = 0  # score the first n examples of each language only; 0: all. Pools stay whole
    evaluation.max_length = 512  # of texts to embed
    evaluation.mining_neighbours = 4
    evaluation.tile = 0  # side of a similarity tile, which bounds the memory of retrieval; 0: fits the device
    return c
