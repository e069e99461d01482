"""Images, labels, pre-processing and the checks of a calibration set.

Import from the modules: this package itself loads nothing, so that the device side
(``images``, ``preprocess``, ``stream``) comes without pydantic and YAML.
"""
