"""How reward models are judged: accuracy, calibration and biases, exact over pairs."""
