"""A checkpoint in any layout: found, recognised, opened, verified, downloaded."""
