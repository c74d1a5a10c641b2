"""Where examples come from: release files, the hub and TFDS, read and checked row by row."""
