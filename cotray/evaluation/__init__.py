"""Measuring what was learned: metrics, intervals, the colour-only floor, figures, explanations, report."""
