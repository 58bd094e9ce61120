"""Enhancement, regions of interest and mask coding: uint8 RGB in, arrays out."""
