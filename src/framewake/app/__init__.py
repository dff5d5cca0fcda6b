"""The command line: it only translates what a person typed into what the pipeline takes."""
