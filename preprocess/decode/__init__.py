"""One picture, from whatever it is given as, into its canvas."""
