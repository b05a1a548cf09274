"""What is on run.html: the numbers of a run, and the sections that show them."""
