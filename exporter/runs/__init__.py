"""RUN: the energy of one command and its children on this machine."""
