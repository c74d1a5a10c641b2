"""Makes the golden files of the encoder with transformers' PyTorch classes; needs torch, the tests do not.

    python tests/long/make_golden.py

Each family gets a folder in transformers' layout (float32 weights of a ForMaskedLM with random everything) and
``expected.npz``: what torch computes from it in float64, with gradients, and small heads over the same encoder.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parents[1] / "golden" / "model"
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 14,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 3,
}
CLASSES = {
    "classify": "ForSequenceClassification",
    "choice": "ForMultipleChoice",
    "tag": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}
FAMILIES = {
    "xlm-roberta": ("XLMRoberta", transformers.XLMRobertaConfig),
    "xlm-roberta-xl": ("XLMRobertaXL", transformers.XLMRobertaXLConfig),
}
LENGTHS, LENGTH = (8, 3, 5, 1), 8


def perturb(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Gives every parameter a random value that float32 holds, norms and biases included."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if name.endswith("LayerNorm.weight") or name.endswith("norm.weight"):
                values = 1 + 0.3 * values
            elif name.endswith("bias"):
                values = 0.3 * values
            elif "embeddings" not in name:
                values = values / parameter.shape[-1] ** 0.5
            parameter.copy_(values)


def make(family: str) -> None:
    prefix, config_class = FAMILIES[family]
    generator = torch.Generator().manual_seed(11)
    masked = getattr(transformers, f"{prefix}ForMaskedLM")(config_class(**SHAPE)).eval()
    perturb(masked, generator)
    folder = HERE / family
    folder.mkdir(parents=True, exist_ok=True)
    masked.config.architectures = [type(masked).__name__]
    masked.config.to_json_file(folder / "config.json", use_diff=False)
    weights = {
        name: tensor.detach().clone()
        for name, tensor in masked.state_dict().items()
        if name not in ("lm_head.decoder.weight", "lm_head.decoder.bias")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)

    draw = np.random.default_rng(12)
    tokens = np.ones((len(LENGTHS), LENGTH), np.int64)
    for row, count in zip(tokens, LENGTHS):
        row[:count] = draw.integers(4, SHAPE["vocab_size"], count)
        row[0] = 0
    ids = torch.tensor(tokens)
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    masked.double()
    output = masked(**inputs, output_hidden_states=True)
    # A loss that reads every real position and no pad: torch freezes the rows of pads.
    logits_weight = torch.tensor(draw.normal(size=output.logits.shape)) * (ids != 1)[..., None]
    (output.logits * logits_weight).sum().backward()
    expected = {
        "tokens": tokens.astype(np.int32),
        "hidden": torch.stack(output.hidden_states).detach().numpy(),
        "mlm_logits": output.logits.detach().numpy(),
        "logits_weight": logits_weight.numpy(),
        **{
            f"gradient/{name}": tensor.grad.numpy()
            for name, tensor in masked.named_parameters(remove_duplicate=False)
            if not name.startswith("lm_head.decoder.")
        },
    }
    for kind, suffix in CLASSES.items():
        shape = {**SHAPE, "num_labels": 2 if kind == "span" else 3}
        model = getattr(transformers, prefix + suffix)(config_class(**shape)).eval()
        perturb(model, generator)
        report = model.roberta.load_state_dict(masked.roberta.state_dict(), strict=False)
        assert all(name.startswith("pooler") for name in report.missing_keys), report
        heads = {
            name: tensor.detach().numpy().copy()
            for name, tensor in model.named_parameters()
            if not name.startswith("roberta.") or "pooler" in name
        }
        expected.update({f"head/{kind}/{name}": tensor for name, tensor in heads.items()})
        model.double()
        given = (
            {name: array.reshape(2, 2, -1) for name, array in inputs.items()} if kind == "choice" else inputs
        )
        found = model(**given)
        if kind == "span":
            logits = torch.stack([found.start_logits, found.end_logits], -1)
        else:
            logits = found.logits
        expected[f"logits/{kind}"] = logits.detach().numpy()
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    for name in FAMILIES:
        make(name)
