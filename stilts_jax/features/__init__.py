"""From text to arrays, and the store that keeps them."""
