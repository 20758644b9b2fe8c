"""Where copies live: the stores, the manifests that prove them, and how long they stay."""
