"""Scoring is data with one executor: the spec, the face of the native scorer, calibration and metrics."""
