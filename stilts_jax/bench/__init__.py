"""How fast training, prediction, mining and the input pipeline are here, beside what people use."""
