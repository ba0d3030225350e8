"""Caffe's solvers: updates, snapshots, and where data layers get their batches."""
