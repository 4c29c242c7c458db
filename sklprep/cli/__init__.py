"""The command line: arguments in, one line for every fault, exit codes 0, 1 and 2."""
