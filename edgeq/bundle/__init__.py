"""The unit that is shipped: artifact, specs, recipe and reports in one folder, every file with its digest."""
