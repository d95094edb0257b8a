"""Export for NVIDIA GPUs, on any machine: no GPU, driver or toolkit is needed, only triton.

The graph is captured on the CPU as always. `program` moves it to a GPU that is not there,
`inductor` answers what Inductor asks of one and has it write code for it, `kernels` compiles the
Triton kernels to machine code of a named architecture, and `link` names what libingot_cuda.so.1
provides.
"""
