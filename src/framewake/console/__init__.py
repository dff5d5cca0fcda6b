"""Everything that reaches a person or a program from here, whatever the terminal, the pipe or the text is like."""
