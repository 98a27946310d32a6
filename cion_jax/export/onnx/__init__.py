"""ONNX of what JAX has traced: `program` walks it, `operators` and `products` say what becomes of each primitive."""
