"""Short programs that open a published file, made from the facts of its report."""
