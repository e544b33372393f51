"""Runner of one program in a pod, as PID 1. `archive` puts it into one file that needs Python alone."""
