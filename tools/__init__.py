"""What builds the package, and tests it on other machines; none of it is installed."""
