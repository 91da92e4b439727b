"""What computes: the threads and kernels of this process, other processes, the nodes of a Ray cluster.

Jobs that are plain data come in, results go out; nothing here knows what they mean. Imports nothing of ours.
"""
