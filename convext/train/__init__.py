"""Training: `train_model`, the loop of every training, callbacks and reports."""
