"""Systems that align pictures and words in one space."""
