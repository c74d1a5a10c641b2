"""From arrays to batches: the order of rows, padded lengths, mixtures, masking and prefetching."""
