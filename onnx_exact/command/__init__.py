"""What only the command line needs: its flags, shell completion, the words of `verify`."""
