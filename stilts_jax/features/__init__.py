"""From text to arrays: one file for each kind of task, and the store that keeps them."""
