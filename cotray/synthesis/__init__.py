"""LeuGAN: synthetic cells for the smaller class, and how good they are."""
