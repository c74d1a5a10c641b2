"""Loads a checkpoint of transformers, trains two epochs on a `datasets.Dataset`, exports, and reads it in PyTorch.

Usage: python launch/train_from_transformers.py CHECKPOINT OUT    (needs pip install '.[hub,parity]')
"""

import sys

import jax
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import stilts_jax as sj

if len(sys.argv) != 3:
    sys.exit(__doc__)
loaded = sj.load_encoder(sys.argv[1], download=True)
tokenizer = AutoTokenizer.from_pretrained(loaded.tokenizer_folder)
data = Dataset.from_dict({"text": ["a good day", "a bad day"] * 32, "label": [1, 0] * 32})  # yours
cut = {"padding": "max_length", "truncation": True, "max_length": 32}
data = data.map(lambda row: {"tokens": tokenizer(row["text"], **cut)["input_ids"]})
data = data.select_columns(["tokens", "label"]).with_format("numpy")
model = sj.Model(loaded.config, (("mine", sj.HeadConfig(kind="classify", num_labels=2)),))
tx = sj.make_optimizer(sj.OptimizerConfig(learning_rate=2e-5, total_steps=2 * (len(data) // 16)))
loss, key = sj.make_loss(model, "mine"), jax.random.key(0)
state = sj.init_state(model, tx, key, encoder=loaded.params)
step = jax.jit(lambda state, batch: sj.train_step(state, batch, loss_fn=loss, tx=tx, key=key))
for epoch in range(2):
    for batch in data.shuffle(seed=epoch).iter(batch_size=16, drop_last_batch=True):
        state, metrics = step(state, batch)
    print(f"epoch {epoch}  loss {float(metrics['loss']):.3f}")
encoder = state.params["encoder"]
head = sj.TaskHead(model.head("mine"), state.params["heads"]["mine"], ("bad", "good"))
sj.export_encoder(sys.argv[2], model.encoder, encoder, tokenizer_folder=loaded.tokenizer_folder, head=head)
theirs, tokens = AutoModelForSequenceClassification.from_pretrained(sys.argv[2]).eval(), data[:4]["tokens"]
logits = theirs(torch.tensor(tokens), torch.tensor(tokens != 1)).logits.detach().numpy()
ours = sj.apply_model(model, {"encoder": encoder, "head": head.params}, {"tokens": tokens}, head="mine")
print(f"PyTorch's logits differ by {np.abs(logits - ours['logits']).max():.1e}")
