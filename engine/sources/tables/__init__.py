"""Tables with a column of pictures as sources: Parquet, Arrow and Lance. See the README."""
