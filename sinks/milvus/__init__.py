"""Milvus, Milvus Lite and Zilliz Cloud as a store: rows upserted by key, searched, and imported in bulk."""
