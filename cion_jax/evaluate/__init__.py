"""From weights and records to features, and from features to retrieval scores."""
