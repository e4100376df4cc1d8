"""Networks of convolutional layers."""
