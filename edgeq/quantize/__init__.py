"""Calibration, the plan, and the QDQ model."""
