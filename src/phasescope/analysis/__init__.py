"""Statistics of a training trajectory: tensors in, tensors or frozen dataclasses out."""
