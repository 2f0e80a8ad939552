"""Evaluation of reward models: accuracy, calibration and biases."""
