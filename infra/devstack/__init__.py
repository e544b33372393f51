"""Development stack: all parts on this machine, as child processes of one command."""
