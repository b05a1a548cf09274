"""What is on sweep.html: the runs of a sweep, the figure that they make, and the sections that show it."""
