"""Gradients, curvature, spectra, geometry and outputs, measured on models."""
