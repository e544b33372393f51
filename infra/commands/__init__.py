"""Commands that swissbrain-server adds to `swissbrain`, by the entry-point group `swissbrain.commands`."""
