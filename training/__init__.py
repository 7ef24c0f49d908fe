"""Training: the model bundle that the job runs, and the architecture comparison of the study."""
