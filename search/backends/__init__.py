"""The search loop compiled: by numba for the CPU, by Triton for CUDA."""
