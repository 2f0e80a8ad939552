"""Games: throughput beside LightZero, learning, the true simulator."""
