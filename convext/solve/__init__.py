"""Finding the kernels between two arrays: patch statistics and least squares."""
