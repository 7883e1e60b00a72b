"""penstock: millions of pictures into a vector store."""

__version__ = "0.1.0"
