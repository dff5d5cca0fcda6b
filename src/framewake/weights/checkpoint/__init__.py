"""A checkpoint in any layout: found, told apart, opened, verified, fetched."""
