"""The whole way from tracklets to scores in a drawn world, small enough for two cores."""
