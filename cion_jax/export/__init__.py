"""A network and its weights as one program that others run: StableHLO for JAX, ONNX for all else."""
