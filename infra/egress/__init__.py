"""Egress proxy: the only way of programs to the network, for the hosts that their call and the operator allow."""
