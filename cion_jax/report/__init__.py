"""Reports: pages of one HTML file each, with their pictures in them."""
