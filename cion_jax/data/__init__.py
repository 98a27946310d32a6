"""Records on disk, the order in which training meets them, and the host pipeline that decodes them."""
