"""Images without a garment: where they come from, and which score tells them apart."""
