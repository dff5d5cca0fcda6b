"""The command line: nothing but translation of what a person typed into what the pipeline takes."""
