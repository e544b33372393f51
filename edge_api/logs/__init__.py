"""Reading logs: pages, streams and long polls over the archive, Redis and live batches."""
