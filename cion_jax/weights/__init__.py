"""Files of weights: our own with its card, PyTorch's and safetensors read and written without PyTorch, keys by rule."""
