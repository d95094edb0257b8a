"""What torch runs, as engines of `ingot compare`: each traced in the way that is its own."""

import ctypes

# PyTorch brings an OpenMP runtime of its own, our ops use the system's: two teams of threads that
# spin against each other, some milliseconds at each change. What is opened globally before torch
# serves both.
ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)
