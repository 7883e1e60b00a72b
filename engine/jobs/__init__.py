"""Ready graphs: what people ask for by one call or one command."""
