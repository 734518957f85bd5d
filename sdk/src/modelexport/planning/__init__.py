"""Plans the conversions of an export, and estimates their time and progress."""
