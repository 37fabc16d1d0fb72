"""Copying and syncing items between dictionaries."""

from persidict.transfer.items import TransferResult, copy_items, sync_items

__all__ = ["TransferResult", "copy_items", "sync_items"]
