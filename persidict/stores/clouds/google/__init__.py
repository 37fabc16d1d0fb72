"""Objects in a bucket of Google Cloud Storage, by the library ``google-cloud-storage``."""
