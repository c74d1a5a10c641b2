"""Loads a checkpoint of transformers, trains two epochs on a `datasets.Dataset`, exports, and reads it in PyTorch.

Usage: python launch/train_from_transformers.py CHECKPOINT OUT [FILE.csv with the columns text and label]
"""

import sys

import jax
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import stilts_jax as sj

tokenizer, loaded = AutoTokenizer.from_pretrained(sys.argv[1]), sj.load_encoder(sys.argv[1])
if len(sys.argv) > 3:
    data = Dataset.from_csv(sys.argv[3])
else:
    data = Dataset.from_dict({"text": ["a good day", "a bad day"] * 32, "label": [1, 0] * 32})
data = data.map(
    lambda row: {
        "tokens": tokenizer(row["text"], padding="max_length", truncation=True, max_length=32)["input_ids"]
    }
)
data = data.select_columns(["tokens", "label"]).with_format("numpy")

model = sj.Model(loaded.config, (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
steps = 2 * (len(data) // 16)
tx = sj.make_optimizer(sj.OptimizerConfig(learning_rate=2e-5, total_steps=steps))
loss, key = sj.make_loss(model, "mine"), jax.random.key(0)
state = sj.init_state(model, tx, key, encoder=loaded.params)
step = jax.jit(
    lambda state, batch: sj.train_step(state, batch, loss_fn=loss, tx=tx, key=key), donate_argnums=0
)
for epoch in range(2):
    for batch in data.shuffle(seed=epoch).iter(batch_size=16, drop_last_batch=True):
        state, metrics = step(state, batch)
    print(f"epoch {epoch}  loss {float(metrics['loss']):.3f}")
head = sj.TaskHead(model.head("mine"), state.params["heads"]["mine"], ("bad", "good"))
sj.export_encoder(
    sys.argv[2], model.encoder, state.params["encoder"], tokenizer_folder=sys.argv[1], head=head
)
theirs = AutoModelForSequenceClassification.from_pretrained(sys.argv[2]).eval()
params = {"encoder": state.params["encoder"], "head": head.params}
ours = sj.apply_model(model, params, {"tokens": np.array(data[:4]["tokens"])}, head="mine")["logits"]
logits = theirs(torch.tensor(data[:4]["tokens"]), torch.tensor(data[:4]["tokens"] != 1)).logits
print(f"PyTorch's logits differ by {np.abs(logits.detach().numpy() - ours).max():.1e}")
