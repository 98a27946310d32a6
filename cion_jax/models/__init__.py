"""Ten families of backbones, one chapter each, and the projection head."""
