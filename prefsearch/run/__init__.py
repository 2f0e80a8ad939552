"""Run directories: steps, locks, digests of inputs."""
