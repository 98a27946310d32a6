"""Records on disk or in a store, the sampler of training batches, and the host pipeline that decodes them."""
