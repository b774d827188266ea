"""Local, Orca and Horovod training behind one contract."""
