"""The operator without a converter: at scale beside other ways to create the same Jobs, and its cost per Job."""
