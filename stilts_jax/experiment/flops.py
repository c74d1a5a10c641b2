"""How much a token costs: the numbers behind utilisation and estimates."""

from stilts_jax.model import EncoderConfig


def training_flops_per_token(encoder: EncoderConfig, length: int = 0) -> float:
    """Returns multiply-adds, times two, of forward and backward pass of the layers for one token.

    Embeddings, heads and recomputation do not count.

    Args:
        length: tokens that a token attends to; 0 leaves the attention's products out.
    """
    width = encoder.hidden_size
    dense = 2 * (4 * width * width + 2 * width * encoder.intermediate_size)
    return 3.0 * encoder.num_layers * (dense + 4 * length * width)
