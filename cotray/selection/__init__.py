"""Feature selection: sine-cosine algorithm, adaptive beta-hill climbing, fitness, ask/tell search."""
