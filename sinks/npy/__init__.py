"""``npy:``: vectors as NumPy files with Parquet metadata, in clip-retrieval's convention."""
