"""What every room needs: checks of arguments, files, messages, sharing between threads."""
