"""What README's tables say, from the result files, by what was measured."""
