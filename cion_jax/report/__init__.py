"""Pages that one can look at: one HTML file each, with everything in it."""
