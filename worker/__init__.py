"""Worker process: claims runs, executes their steps, and stores files and logs. It speaks to Redis over TCP."""
