"""Agent: the strategy for runs with a prompt, which a language model plans and carries out."""
