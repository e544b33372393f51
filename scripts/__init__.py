"""Programs for developers: they build packages and images, generate code and check manifests."""
