"""What a model can be asked for: one file a kind of output, from examples to tensors and back."""
