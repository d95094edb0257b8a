"""What torch runs, as engines of `ingot compare`: each traced in the way that is its own.

Here is what must be settled before a process imports torch.
"""

import ctypes
import os

# PyTorch brings an OpenMP runtime of its own, our ops use the system's: two teams of threads that
# spin against each other at each change between them. What is opened globally first serves both.
ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch.profiler notes each start and stop
