"""LeuSAM: Segment Anything's modules fine-tuned on leukocyte masks, and a numpy predictor."""
