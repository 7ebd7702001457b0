"""Accelerators of other makers: Intel Gaudi, AWS Trainium and Inferentia, Google TPU."""
