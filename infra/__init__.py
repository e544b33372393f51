"""What API and worker share: the contract between them, and the adapters for Redis, S3, models and sandboxes."""
