"""Blobs in a container of Azure Blob Storage, by the library ``azure-storage-blob``."""
