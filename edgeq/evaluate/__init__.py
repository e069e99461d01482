"""What a model is worth: metrics, the paired drop with its interval, and whether its input fits.

Import from the modules: this package itself loads nothing.
"""
