"""HDLC, the classifier on selected features, and its calibration."""
