"""Generated tasks: problems, data files in verl's layout, and the rule that scores a response."""
