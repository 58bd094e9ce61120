"""How any Learner is trained: batches, steps, averages, validation, early stop. PURE: no Ray, no files."""
